"""A network scored on a folder of faces, without the images on which it was trained."""

import json
import shutil
from pathlib import Path

import pytest

from fer_jax import evaluate
from tests.data.images import link_ck48


@pytest.fixture
def folder(shared_data, tmp_path):
    """Two classes of CK+, of which one image is empty and one no image."""
    linked = link_ck48(shared_data, tmp_path / 'linked', ('happy', 'anger'), 12)
    faces = Path(shutil.copytree(linked, tmp_path / 'faces'))
    first, second = sorted((faces / 'happy').iterdir())[:2]
    first.write_bytes(b'')
    second.write_text('no image')
    return faces


def test_the_release_is_scored_without_its_training_data(folder, tmp_path, capsys, monkeypatch):
    """Which images it has seen is not known here, and said; what is broken is counted, and the status says so."""
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'cache'))
    command = ['--workdir', 'release:fer2013', '--data', str(folder), '--output', str(tmp_path / 'scores.json')]
    assert evaluate.main(command) == 2
    written = capsys.readouterr()
    assert 'its training images cannot be left out: data set fer2013 is not prepared' in written.out
    assert 'left out: 0 trained on, 0 of other classes, 2 unreadable' in written.out
    assert '2 images of' in written.err and 'could not be read' in written.err
    results = json.loads((tmp_path / 'scores.json').read_text())
    assert results['splits']['faces']['n'] == 22 and len(results['not_left_out']) == 1
    for path in sorted((folder / 'happy').iterdir())[:2]:
        path.unlink()
    assert evaluate.main(command) == 0
