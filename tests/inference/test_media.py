"""Photographs, folders, videos and cameras as pictures one after the other."""

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.inference import media


def write_video(path, count, *, rate=25.0, size=(64, 48), codec='mp4v'):
    """Frame k is grey of level k modulo 200."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
    for number in range(count):
        writer.write(np.full((size[1], size[0], 3), number % 200, np.uint8))
    writer.release()
    return path


def test_folders_are_searched_and_nothing_comes_twice(tmp_path):
    for name in ('b/x.png', 'a.JPG', 'b/.hidden.png', 'b/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('')
    write_video(tmp_path / 'film.mp4', 3)
    found = media.sources([str(tmp_path), str(tmp_path / 'a.JPG')])
    assert [source.name.removeprefix(f'{tmp_path}/') for source in found] == ['a.JPG', 'b/x.png', 'film.mp4']
    assert [source.moves for source in found] == [False, False, True]
    assert found[2].frames == 3 and found[2].rate == 25
    assert [source.name for source in media.sources([str(tmp_path / 'b' / 'notes.txt')])]  # what is named is tried


def test_what_is_not_there_is_named(tmp_path):
    for given, message in (
        (str(tmp_path / 'absent.jpg'), 'absent.jpg.* is no file and no folder; give photographs'),
        (str(tmp_path), r'holds no photographs and no videos \(.bmp, .gif, .*.webm'),
        ('camera:63', 'camera:63.* cannot be opened; is it there'),
        ('camera:front', 'camera:front.* is no camera; give camera:0'),
        ('camera:', 'is no camera'),
    ):
        with pytest.raises(UserError, match=message):
            media.sources([given])


def test_a_photograph_is_one_frame(tmp_path):
    Image.new('RGB', (8, 6), (1, 2, 3)).save(tmp_path / 'x.png')
    (source,) = media.sources([str(tmp_path / 'x.png')])
    (frame,) = media.read_frames(source)
    assert frame.image.shape == (6, 8, 3) and frame.image[0, 0].tolist() == [1, 2, 3] and not source.moves


@pytest.mark.parametrize(('suffix', 'codec', 'rate'), [('mp4', 'mp4v', 25.0), ('avi', 'MJPG', 12.5)])
def test_a_videos_frames_have_their_numbers_and_times(tmp_path, suffix, codec, rate):
    path = write_video(tmp_path / f'film.{suffix}', 60, rate=rate, codec=codec)
    (source,) = media.sources([str(path)])
    assert source.frames == 60
    for every in (1, 7):
        found = list(media.read_frames(source, every=every))
        assert [frame.number for frame in found] == list(range(0, 60, every))
        np.testing.assert_allclose([frame.seconds for frame in found], np.arange(0, 60, every) / rate, atol=1e-3)
        levels = [frame.image.mean() for frame in found]
        np.testing.assert_allclose(levels, np.arange(0, 60, every), atol=4)
        assert not any(frame.error for frame in found)


def test_a_video_that_is_cut_off_gives_what_is_there_and_says_so(tmp_path):
    path = write_video(tmp_path / 'film.avi', 150, codec='MJPG')
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    (source,) = media.sources([str(path)])
    *found, last = media.read_frames(source)
    assert 20 < len(found) < 100 and all(frame.image is not None for frame in found)
    assert last.image is None and 'film.avi ends after' in last.error and 'of its 6.0 seconds' in last.error


def test_what_is_no_video_is_said(tmp_path):
    data = write_video(tmp_path / 'x_01.mp4', 30).read_bytes()
    for content in (data[: len(data) // 2], b'hello', b''):  # an mp4 has its table at its end
        (tmp_path / 'x_01.mp4').write_bytes(content)
        (source,) = media.sources([str(tmp_path / 'x_01.mp4')])
        (frame,) = media.read_frames(source)
        assert frame.image is None and 'x_01.mp4 cannot be read as a video' in frame.error
