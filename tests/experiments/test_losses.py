"""The table of losses, with runs that leave their results without training."""

import json

import numpy as np
import pytest

from fer_jax.evaluation import score_logits
from fer_jax.training import repeats
from fer_jax.utils.signals import Stopped
from scripts.experiments import losses

CLASSES = ('angry', 'happy')


def scores(hits):
    labels = np.arange(20) % 2
    predicted = np.where(np.arange(20) < hits, labels, 1 - labels)
    return score_logits.score_logits(np.eye(2)[predicted], labels, CLASSES)


@pytest.fixture
def trained(monkeypatch):
    """Names of the cells that were trained, in order; 'focal' is stopped once."""
    names, left = [], ['focal']

    def train(config, workdir):
        if workdir.name in left:
            left.remove(workdir.name)
            raise Stopped('stopped by SIGTERM')
        names.append(workdir.name)
        workdir.mkdir(parents=True, exist_ok=True)
        splits = {'test': scores(10 + len(names)), 'test_clean': scores(10)}
        (workdir / 'results.json').write_text(json.dumps({'splits': splits}))
        (workdir / 'report.html').touch()
        (workdir / 'config.json').write_text(json.dumps(config))
        (workdir / 'timing.jsonl').write_text('{"step": 1, "event": "train", "seconds": 90.0}\n')

    monkeypatch.setattr(repeats, 'train', train)
    return names


def test_the_same_command_goes_on_and_leaves_finished_cells_alone(trained, tmp_path):
    output = tmp_path / 'docs' / 'losses.jsonl'
    command = ['--out', str(tmp_path), '--output', str(output), '--cells', 'cross_entropy,focal,sam']
    assert losses.main(command) == 75
    assert trained == ['cross_entropy'] and len(output.read_text().splitlines()) == 1
    assert losses.main(command) == 0
    assert trained == ['cross_entropy', 'focal', 'sam']
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [one['cell'] for one in rows] == trained
    assert [one['accuracy'] for one in rows] == [0.55, 0.6, 0.65] and rows[0]['minutes'] == 1.5
    assert rows[1]['config']['loss']['name'] == 'focal' and rows[2]['config']['phases'][0]['sam'] == 0.05
    assert output.with_suffix('.md').read_text().count('\n') == 5
    assert losses.main(command) == 0 and len(trained) == 3
    assert losses.main(['--cells', 'cross_entropy,focl']) == 2


def test_cells_change_one_thing_and_share_their_images():
    settings = losses.FULL | {'epochs': 5.0, 'image_size': 64, 'source': 'scratch'}
    configs = {name: losses.config_of(name, **settings) for name in losses.CELLS}
    assert {config.data.train_examples for config in configs.values()} == {5000}
    assert len({config.to_json() for config in configs.values()}) == len(configs)
    assert configs['ferplus'].data.target == 'cross_entropy' and configs['mixup'].data.augment.mixup == 0.2
