"""Numbers that are not finite."""

import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fer_jax
from configs import default
from fer_jax.errors import UserError
from fer_jax.runs import checkpoints, model_file
from fer_jax.training import nonfinite
from fer_jax.training.train_state import FrozenState
from tests.small_run import config_of


def test_parameters_that_an_update_carries_over_the_largest_number_are_noticed():
    largest = jnp.float32(3e38)
    assert nonfinite.all_finite({'a': largest, 'b': jnp.ones(3)})
    assert not nonfinite.all_finite({'a': largest * 10, 'b': jnp.ones(3)})


@pytest.mark.parametrize('mode', ['stop', pytest.param('skip', marks=pytest.mark.slow)])
def test_a_step_that_is_not_finite_ends_the_run_or_is_left_out(faces, tmp_path, mode, capsys):
    """A weight of 3.4e38 in a manifest overflows the loss of the batch that holds it."""
    lines = ['path,label,split,weight']
    for number, path in enumerate(sorted(faces.rglob('*.png'))):
        split, weight = ('train', 'validation')[number % 10 == 0], 3.4e38 if number in (5, 35, 65) else 1
        lines.append(f'{path},{path.parent.name},{split},{weight}')
    (tmp_path / 'faces.csv').write_text('\n'.join(lines))
    config = config_of(faces)
    config.data.update({'dir': '', 'manifest': str(tmp_path / 'faces.csv'), 'batch_size': 27})
    config.data.splits.test = ''
    config.phases = (default.phase(epochs=2, learning_rate=1e-3, clip=1.0),)
    config.update({'on_nonfinite': mode, 'log_every': 1})
    workdir = tmp_path / 'run'
    if mode == 'skip':
        fer_jax.train(config, workdir)
        records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
        assert 1 <= max(record.get('skipped', 0) for record in records) <= 6
        assert all(np.isfinite(record['loss']) for record in records if 'loss' in record)
    else:
        with pytest.raises(UserError, match=r'step \d+ gives numbers that are not finite.*JAX_DEBUG_NANS=1'):
            fer_jax.train(config, workdir)
        (written,) = workdir.glob('nonfinite_step_*.json')
        examples = json.loads(written.read_text())['examples']
        assert len(examples) == 27 and written.with_suffix('.png').stat().st_size > 1000


def test_the_best_step_outlives_a_score_that_is_not_a_number(finished, tmp_path):
    workdir, _ = finished
    spec = model_file.read_spec(workdir)
    store = checkpoints.Checkpoints(tmp_path, spec)
    params = {'a': np.ones(2, np.float32)}
    for step, value in ((1, 0.5), (2, 0.9), (3, float('nan')), (4, 0.7), (5, None)):
        state = fer_jax.training.train_state.create(step, params, {}, optax.identity())
        store.save(fer_jax.training.train_state.to_items(state, FrozenState({}, {})), value)
        store.wait()
        assert store.latest_step() == step
    assert store.best_step() == 2
    store.close()
    assert checkpoints.Checkpoints(tmp_path, spec).best_step() == 2
