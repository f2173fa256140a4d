"""The notebooks of docs/tutorials/ run from end to end, at a small size, and hold the outputs of a full run."""

import json
import re

import pytest

from tests.documents.pages import REPOSITORY

TUTORIALS = {path.name: path for path in (REPOSITORY / 'docs' / 'tutorials').glob('*.ipynb')}
FAST = "model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': 32})"
SMALL = {
    'first_model.ipynb': f'epochs = (1, 1)\nconfig.data.train_examples = 64\nconfig.{FAST}',
    'own_faces.ipynb': f"""
import fer_jax

people, epochs = 20, (1, 1)
made = fer_jax.get_config('quickstart')
made.{FAST}
fer_jax.get_config = lambda name: made
""",
}


def test_every_notebook_has_outputs_without_warnings_and_paths():
    assert TUTORIALS.keys() == SMALL.keys()
    for path in TUTORIALS.values():
        code = [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code']
        assert sum(bool(cell['outputs']) for cell in code) >= len(code) - 2
        text = json.dumps([cell['outputs'] for cell in code])
        assert not re.search(r'stderr|Warning|/home/|/root/|site-packages', text), path.name


@pytest.mark.slow
@pytest.mark.parametrize('name', SMALL)
def test_a_notebook_runs(name, tmp_path):
    pytest.importorskip('nbclient')
    pytest.importorskip('onnxruntime')
    from scripts.execute_tutorials import execute

    execute(TUTORIALS[name], tmp_path, SMALL[name])
    assert list(tmp_path.glob('runs/*/report.html'))
