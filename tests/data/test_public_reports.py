"""What users of other trainers report of their folders: each situation is read, or refused by its right name."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import dataset
from fer_jax.data.imaging.codec import decode
from fer_jax.data.sources import folder
from fer_jax.errors import UserError
from tests.data.images import link_ck48

ROLES = {'train': 'train', 'validation': 'validation', 'test': 'test'}


@pytest.fixture
def faces(shared_data, tmp_path):
    """Two classes of CK+, copied, in a folder of a name that a shell would expand."""
    linked = link_ck48(shared_data, tmp_path / 'linked', ('happy', 'anger'), 12)
    return Path(shutil.copytree(linked, tmp_path / 'archive (1) [a-z] *' / '.cache' / 'faces #1 %s'))


def load(directory, **changes):
    settings = {'dir': str(directory), 'splits': ROLES, 'image_size': 48, 'channels': 3, 'root': directory}
    return dataset.load_dataset(**(settings | changes))


def read_all(data):
    return np.concatenate([split.read(np.arange(len(split.ids))) for split in data.splits.values()])


def test_runs_and_examinations_inside_the_data_folder_are_no_classes(faces):
    picture = next((faces / 'happy').iterdir()).read_bytes()
    for place, names in (
        ('happy/runs/run-1', ('config.json', 'confusion.png')),
        ('anger/examination', ('findings.json', 'classes.png')),
    ):
        (faces / place / 'checkpoints').mkdir(parents=True)
        for name in names:
            (faces / place / name).write_bytes(picture)
    table = folder.scan(faces)
    assert len(table) == 24
    assert table.left_out['written by fer_jax'] == ['anger/examination/', 'happy/runs/run-1/']
    (faces / 'runs').mkdir()
    (faces / 'happy' / 'runs' / 'run-1').rename(faces / 'runs' / 'run-1')
    with pytest.raises(UserError, match=r'/runs has no images .*; left out: 1 \(written by fer_jax\): runs/run-1/;'):
        folder.scan(faces)


def test_a_test_folder_of_images_without_labels_is_refused_by_that_name(faces, tmp_path):
    shutil.copytree(faces, tmp_path / 'kaggle' / 'train')
    shutil.copytree(faces / 'happy', tmp_path / 'kaggle' / 'test')
    with pytest.raises(
        UserError, match=r'test has no class folders \(found 12 images\).*without labels have to be moved'
    ):
        load(tmp_path / 'kaggle')


def test_what_a_download_service_adds_is_left_out(faces, tmp_path):
    for split in ('train', 'valid', 'test'):
        shutil.copytree(faces, tmp_path / 'export' / split)
    for name in ('README.roboflow.txt', 'data.yaml', 'train/_annotations.csv', 'Thumbs.db', 'train/happy/desktop.ini'):
        (tmp_path / 'export' / name).write_text('x')
    (tmp_path / 'export' / 'train' / '.ipynb_checkpoints').mkdir()
    data = load(tmp_path / 'export')
    assert [len(split.ids) for split in data.splits.values()] == [24, 24, 24]
    assert len(data.notes) == 2 and any('left out: 3 (no image by its suffix)' in note for note in data.notes)


def test_the_content_decides_not_the_suffix(faces):
    """As phones and browsers save them: PNG, WebP, GIF, BMP, AVIF and MPO called .jpg."""
    first = next((faces / 'happy').iterdir())
    image = Image.open(first).convert('RGB')
    for kind in ('PNG', 'WEBP', 'GIF', 'BMP', 'AVIF', 'TIFF'):
        image.save(faces / 'happy' / f'{kind}.jpg', kind, **({'lossless': True} if kind == 'WEBP' else {}))
    image.save(faces / 'happy' / 'two.jpg', 'MPO', save_all=True, append_images=[image])
    image.convert('RGBA').save(faces / 'happy' / 'alpha.JPG', 'PNG')
    assert len(read_all(load(faces))) == 32


@pytest.mark.parametrize('content', [bytes(4000), b'<!DOCTYPE html><html>not found</html>', b'\xff\xd8\xff\xe0'])
def test_no_images_that_are_called_so_are_named(faces, content):
    (faces / 'anger' / 'x.jpg').write_bytes(content)
    with pytest.raises(UserError, match=r'1 of the 25 images .*anger/x.jpg'):
        read_all(load(faces))


def test_a_jpeg_that_lacks_its_last_bytes_is_named(faces):
    buffer = io.BytesIO()
    Image.open(next((faces / 'happy').iterdir())).convert('RGB').save(buffer, 'JPEG')
    (faces / 'happy' / 'cut.jpg').write_bytes(buffer.getvalue()[:-54])
    with pytest.raises(UserError, match='1 of the 25 images .*happy/cut.jpg .*truncated'):
        read_all(load(faces))


def test_numbers_as_class_names_stay_names(faces):
    for number, name in ((10, 'happy'), (2, 'anger')):
        (faces / name).rename(faces / str(number))
    data = load(faces, canonical_classes=True)
    for split in data.splits.values():
        assert all(
            data.classes[label] == name.split('/')[0] for label, name in zip(split.labels, split.ids, strict=True)
        )


def test_class_orders_of_splits_do_not_mix_labels(faces, tmp_path):
    """By name, where one split lacks the first class."""
    for split in ('train', 'test'):
        shutil.copytree(faces, tmp_path / 'split' / split)
    shutil.rmtree(tmp_path / 'split' / 'test' / 'anger')
    data = load(tmp_path / 'split')
    assert set(data.splits['test'].labels) == {data.classes.index('happy')}


def test_names_of_any_bytes(faces):
    names = ['a b.png', 'q?.png', 'new\nline.png', 'x' * 240 + '.png', 'comma,quote".png', '日本.png', '%20.png']
    for name in [*map(os.fsencode, names), b'latin-\xe9.png']:
        shutil.copy(next((faces / 'anger').glob('S*')), os.path.join(os.fsencode(faces / 'anger'), name))
    assert len(read_all(load(faces))) == 32
    (faces / 'anger' / 'broken\n.png').write_bytes(b'')
    with pytest.raises(UserError, match=r"1 of the 33 images .*: 'anger/broken\\n.png' \(an empty file\)"):
        load(faces)


def test_an_archive_in_place_of_a_folder(faces, tmp_path):
    path = shutil.make_archive(str(tmp_path / 'faces'), 'zip', faces)
    with pytest.raises(UserError, match='is a file, not a folder; an archive has to be unpacked'):
        load(path)


def test_a_strip_of_pixels_does_not_fill_the_memory():
    strip = np.zeros((1, 60_000), np.uint8)
    strip[:, 29_000:31_000] = 200
    buffer = io.BytesIO()
    Image.fromarray(strip).save(buffer, 'PNG')
    assert (decode(buffer.getvalue(), 224, 1, 'strip') == 200).all()


def test_a_path_of_a_manifest_may_be_a_folder(faces, tmp_path):
    paths = [*faces.rglob('*.png')]
    rows = [f'"{path}",{path.parent.name}\n' for path in paths]
    (tmp_path / 'list.csv').write_text('path,label\n' + ''.join(rows) + f'"{faces}",happy\n')
    with pytest.raises(UserError, match=r'1 of the 25 images .*\(.* it is no regular file|cannot be read'):
        load(faces, dir='', manifest=str(tmp_path / 'list.csv'))


def test_images_that_vanish_while_it_trains_are_named(faces):
    data = load(faces)
    shutil.rmtree(faces / 'happy')
    with pytest.raises(UserError, match=r'12 of the 24 images .*No such file'):
        read_all(data)
