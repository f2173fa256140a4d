"""Names, times and copies: what `predict` writes for files as phones, cameras and file systems have them."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.inference.test_face_pipeline import RED, lines_of, run, write_video
from tests.inference.test_media import encode_video

av = pytest.importorskip('av')


def test_no_name_stops_the_others(untrained, yunet, tmp_path):
    """Names that are not UTF-8, names as long as the file system takes, and damaged files of such names."""
    folder = tmp_path / 'in'
    folder.mkdir()
    film = write_video(tmp_path / 'film.mp4', 5)
    odd = os.fsdecode(b'odd\xff')
    for name in (f'{odd}.mp4', f'{"f" * 251}.mp4', 'z.mp4'):
        (folder / name).write_bytes(film.read_bytes())
    for name in (f'{odd}.png', f'{"p" * 251}.png', 'z.png'):
        Image.fromarray(RED).save(folder / name)
    for name in (f'{odd}.mkv', f'{"d" * 251}.jpg'):
        (folder / name).write_text('hello')
    out = tmp_path / 'out'
    assert run(folder, '--workdir', untrained, '--yunet', yunet, '--out', out) == 2
    lines = lines_of(out)
    failed = [line['file'] for line in lines if 'error' in line]
    assert sorted(failed) == sorted([str(folder / f'{odd}.mkv'), str(folder / f'{"d" * 251}.jpg')])
    assert len({line['file'] for line in lines}) == 8 and sum('label' in line for line in lines) == 3 * 5 + 3
    assert len(list(out.glob('*_annotated.mp4'))) == 3 and len(list(out.glob('*.jpg'))) == 3


def test_the_annotated_copy_has_the_times_of_the_source(untrained, yunet, tmp_path):
    seconds = [0.0, 0.04, 0.08, 1.0, 1.04, 3.0, 3.04]
    film = encode_video(tmp_path / 'film.mkv', 'matroska', 'libx264', seconds)
    for every in (1, 3):
        out = tmp_path / f'out{every}'
        assert run(film, '--workdir', untrained, '--yunet', yunet, '--out', out, '--every', every) == 0
        with av.open(str(out / 'film_annotated.mp4')) as copy:
            assert copy.streams.video[0].codec_context.name == 'h264'
            np.testing.assert_allclose([frame.time for frame in copy.decode(video=0)], seconds[::every], atol=2e-3)
        np.testing.assert_allclose([line['seconds'] for line in lines_of(out)], seconds[::every], atol=2e-3)
