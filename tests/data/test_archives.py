"""Folders, zips and tars give the same names and bytes; hostile ones are named and touch nothing outside."""

import gzip
import io
import os
import struct
import tarfile
import zipfile

import pytest
from PIL import Image

from fer_jax.data.sets.archives import open_source
from fer_jax.errors import UserError
from fer_jax.utils import limits

FILES = {
    'a/list.txt': b'\xef\xbb\xbfone 1\r\n\r\ntwo 2\r\n',
    'a/b/0.jpg': b'zero',
    'a/b/1.JPG': b'',
    'c.csv': b'x,y\n1,2\n',
}
HIDDEN = {'.git/0.jpg': b'no', 'a/._0.jpg': b'no', '__MACOSX/a/0.jpg': b'no'}


def contain(kind, files, folder):
    """The files as a folder or an archive of that kind."""
    if kind == 'folder':
        for name, data in files.items():
            (folder / 'made' / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / 'made' / name).write_bytes(data)
        return folder / 'made'
    path = folder / f'made.{kind}'
    if kind == 'zip':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, {'tar': 'w', 'tar.gz': 'w:gz'}[kind]) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f'./{name}')
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize('kind', ['folder', 'zip', 'tar', 'tar.gz'])
def test_every_container_reads_alike(tmp_path, kind):
    source = open_source(contain(kind, FILES | HIDDEN, tmp_path))
    assert source.names == tuple(sorted(FILES))
    assert {name: source.read(name) for name in reversed(source.names)} == FILES
    assert list(source.lines('a/list.txt')) == ['one 1', 'two 2']
    assert source.images() == ['a/b/0.jpg', 'a/b/1.JPG']
    assert list(source.table('c.csv', ['y'])) == [{'x': '1', 'y': '2'}]
    assert (source.one('LIST.txt'), source.one('b/0.jpg'), source.one('ist.txt')) == ('a/list.txt', 'a/b/0.jpg', None)


@pytest.mark.parametrize('kind', ['zip', 'tar', 'tar.gz'])
def test_names_that_lead_outside_are_left_out(tmp_path, kind):
    outside = {'../evil.jpg': b'x', '/etc/evil.jpg': b'x', 'a/../../evil.jpg': b'x'}
    before = sorted(tmp_path.parent.rglob('*'))
    source = open_source(contain(kind, FILES | outside, tmp_path))
    assert set(FILES) <= set(source.names) and all(source.read(name) is not None for name in source.names)
    assert not [name for name in source.names if '..' in name]
    assert [path.name for path in sorted(tmp_path.parent.rglob('*')) if path not in before] == [f'made.{kind}']


def test_links_in_a_tar_are_not_followed(tmp_path):
    (tmp_path / 'secret.jpg').write_bytes(b'secret')
    with tarfile.open(tmp_path / 'made.tar', 'w') as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f'{kind.decode()}.jpg')
            member.type, member.linkname = kind, str(tmp_path / 'secret.jpg')
            archive.addfile(member)
    assert open_source(tmp_path / 'made.tar').names == ()


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    root = contain('folder', {'a/0.jpg': b'0'}, tmp_path)
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / '1.jpg').write_bytes(b'1')
    (root / 'linked').symlink_to(tmp_path / 'elsewhere')
    (root / '0_first_by_name').symlink_to(root / 'a')  # what it points to keeps its own name
    (root / 'a' / 'loop').symlink_to(root)
    (root / 'a' / 'up').symlink_to(tmp_path)
    (tmp_path / '2.jpg').write_bytes(b'2')
    (root / 'broken.jpg').symlink_to(root / 'nowhere')
    os.mkfifo(root / 'pipe.jpg')
    source = open_source(root)
    assert source.names == ('a/0.jpg', 'linked/1.jpg') and source.read('linked/1.jpg') == b'1'


def with_flag(path, flag):
    """Marks the first member of a zip as encrypted, or as compressed by an unknown method."""
    data = bytearray(path.read_bytes())
    entry = data.find(b'PK\x01\x02')
    offset, value = {'encrypted': (8, 1), 'method': (10, 99)}[flag]
    for at in (offset - 2, entry + offset):
        data[at : at + 2] = struct.pack('<H', value)
    path.write_bytes(data)


def damaged(kind, folder):
    files = {'0.jpg': bytes(range(256)) * 40}
    if kind in ('encrypted', 'method'):
        path = contain('zip', files, folder)
        with_flag(path, kind)
    elif kind == 'flipped':
        path = contain('zip', files, folder)
        data = bytearray(path.read_bytes())
        data[60:64] = b'\xff\xff\xff\xff'
        path.write_bytes(data)
    elif kind == 'cut gz':
        path = contain('tar.gz', files, folder)
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == 'cut tar':
        path = contain('tar', files, folder)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == 'gz of text':
        path = folder / 'made.gz'
        path.write_bytes(gzip.compress(b'no tar'))
    else:
        path = folder / 'made.tar'
        path.write_bytes({'empty': b'', 'text': b'hello'}[kind])
    return path


@pytest.mark.parametrize('kind', ['encrypted', 'method', 'flipped', 'cut gz', 'cut tar', 'gz of text', 'empty', 'text'])
def test_a_damaged_archive_is_named(tmp_path, kind):
    path = damaged(kind, tmp_path)
    with pytest.raises(UserError) as caught:
        source = open_source(path)
        source.read(source.names[0])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('kind', ['folder', 'zip', 'tar', 'tar.gz'])
def test_what_unpacks_too_large_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(limits, 'MEMBER_BYTES', 1000)
    monkeypatch.setattr(limits, 'MEMBER_LINE_BYTES', 1000)
    source = open_source(contain(kind, {'0.jpg': bytes(1001), '1.jpg': bytes(1000)}, tmp_path))
    assert len(source.read('1.jpg')) == 1000
    with pytest.raises(UserError, match='0.jpg holds more than 1,000 bytes'):
        source.read('0.jpg')
    with pytest.raises(UserError, match='0.jpg, line 1 is no UTF-8 text'):
        list(source.lines('0.jpg'))
    monkeypatch.setattr(limits, 'UNPACKED_BYTES', 1000)
    if kind == 'tar.gz':
        with pytest.raises(UserError, match='bytes when unpacked, at most 1,... are read; unpack it first'):
            open_source(source.path)


def test_a_name_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / os.fsdecode(b'J\xf6rg.jpg')).write_bytes(b'x')
    with pytest.raises(UserError, match=r"J\\xf6rg.jpg' is no UTF-8; rename it"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (b'x,y\n1,2\n3\n', 'row 2: 1 cells, expected 2'),
        (b'x,z\n1,2\n', 'has no column y; it has x, z'),
        (b'', 'has no column x, y; it has none'),
        (b'x,y\n\xff\xfe,2\n', 'line 2 is no UTF-8 text'),
        (b'x,y\n"' + b'1\n' * 100_000, 'row 1: 1 cells, expected 2|line .*field larger than field limit'),
    ],
)
def test_a_malformed_csv_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        list(open_source(contain('folder', {'c.csv': text}, tmp_path)).table('c.csv', ['x', 'y']))


def test_a_csv_may_lack_its_heading(tmp_path):
    for text in (b'x,y\n1,2\n', b'1,2\n'):
        source = open_source(contain('folder', {'c.csv': text}, tmp_path))
        assert list(source.table('c.csv', ['x'], default=('x', 'y'))) == [{'x': '1', 'y': '2'}]


def test_the_shape_of_all_images(tmp_path):
    def image(name, mode, size):
        Image.new(mode, size).save(tmp_path / name)
        return name

    small, other = image('0.png', 'L', (20, 30)), image('1.png', 'L', (20, 30))
    colour, large = image('2.png', 'RGB', (20, 30)), image('3.png', 'L', (40, 30))
    (tmp_path / 'text.png').write_text('no image')
    source = open_source(tmp_path)
    assert source.shape([small, other, 'text.png']) == (30, 20, 1)
    assert source.shape([small, colour]) == (30, 20, 3)
    assert source.shape([small, large]) == (None, None, 1)
    assert source.shape(['text.png']) == (None, None, 3)
