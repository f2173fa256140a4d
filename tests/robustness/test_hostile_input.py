"""A few of the inputs of scripts/robustness/hostile_input.py: each is refused by a limit, or read, at once."""

import numpy as np
import pytest

from fer_jax.data.imaging import codec, decoding_process
from fer_jax.errors import UserError
from fer_jax.utils import limits
from scripts.robustness import hostile_files, hostile_input
from scripts.robustness.hostile_images import chunk, empty_scans, gif, overlapping_tags, png, segment

REFUSED = {
    ('manifest', '100,000 columns'): '100,000 columns, at most 1,000 are read',
    ('manifest', 'jsonl nested 900 deep'): '.',
    ('manifest', 'jsonl nested 100,000 deep'): 'no JSON',
    ('manifest', 'special files'): 'it is no regular file',
    ('boxes', '100,000 columns'): 'at most 1,000 are read',
    ('archive', 'tar of a claim of 8 EB'): 'cut short',
    ('request', 'JSON of an integer'): 'no JSON of the form',
    ('flags', '--config.phases[0].rates=(("((a{999}){999}){999}", 1.0),)'): r'a regular expression \(of RE2\)',
    ('flags', '--config.joint.items.weight=1'): 'is not a config key',
    ('data folder', 'special files among the images'): r'4 \(no regular file\)',
    ('photo', 'FIFO'): 'give photographs',
    ('manifest', '/dev/zero'): 'is not a file',
    ('config', 'sparse file of 1 TB'): 'bytes, at most 1,048,576 are read',
    ('predictions', 'FIFO'): 'no regular file',
}


@pytest.mark.parametrize(('kind', 'name'), REFUSED, ids=str)
def test_an_input_made_to_harm_is_refused(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(hostile_input.ROOT)
    (case,) = (case for case in hostile_files.cases() if (case.kind, case.name) == (kind, name))
    with pytest.raises(UserError, match=REFUSED[kind, name]):
        hostile_input.DOORS[kind](case.make(tmp_path))


def test_links_in_a_circle_end(tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    hostile_input.read_folder(hostile_files.FOLDERS['links in a circle'](tmp_path / 'in'))
    monkeypatch.setattr(limits, 'LINKED_ENTRIES', 20)
    for number in range(30):
        (tmp_path / f'{number}.txt').touch()
    (tmp_path / 'in' / 'a' / 'out').symlink_to(tmp_path)
    (tmp_path / 'in' / 'a' / 'beside').symlink_to('/usr/bin')
    with pytest.raises(UserError, match='more than 20 entries that are no images; remove the link'):
        hostile_input.read_folder(tmp_path / 'in')


def test_an_image_that_takes_too_long_ends_its_process_and_nothing_else(monkeypatch):
    codec.open_image(png(8, 8))
    monkeypatch.setattr(limits, 'DECODING_SECONDS', 0.0)
    slow = gif(16, 16, b'!\xf9\x04\0\0\0\0\0' * 2_000_000)
    for _ in range(2):  # at once the second time
        with pytest.raises(codec.ImageLimitError, match='more than 0 s of a processor, and one more'):
            codec.decode(slow, None, 3, 'x')
    with pytest.raises(codec.ImageLimitError, match='at most 5,000,000,000 are decoded'):
        codec.decode(empty_scans(5_000, 9_000, 9_000), None, 3, 'x')
    monkeypatch.undo()
    np.testing.assert_array_equal(codec.open_image(png(8, 8))[0], 0)


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (overlapping_tags(2_000, 2_000_000), ''),
        (gif(65_535, 65_535, b''), 'pixels are more than'),
        (png(16, 16, more=chunk(b'abCd', b'') * 5_000), ''),
        (b'\xff\xd8' + segment(0xE3, b'') * 5_000, 'cannot be read'),
        (b'P6\n#' + b'x' * 100_000 + b'\n1 1 255\n000', ''),
    ],
    ids=['tags of a TIFF that overlap', 'a large GIF', 'chunks of a PNG', 'markers of a JPEG', 'comment of a PPM'],
)
def test_an_image_made_to_harm_is_read_or_named(data, reason):
    try:
        codec.decode(data, None, 3, 'x')
    except UserError as error:
        assert reason in str(error)
    else:
        assert not reason


def test_processes_that_decode_end_with_their_pool():
    codec.open_image(png(8, 8))
    decoder = decoding_process._pool.idle.queue[-1]
    assert decoder._process.poll() is None
    decoding_process._pool.close()
    assert decoder._process.poll() == 0
