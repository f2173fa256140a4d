"""A run that goes on under a changed config."""

import json

import pytest

from configs import default
from fer_jax.errors import UserError
from fer_jax.runs import config as run_config


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / 'config.json').write_text(default.get_config().to_json())
    return tmp_path


def changed(**fields):
    config = json.loads(default.get_config().to_json())
    for key, value in fields.items():
        *parents, last = key.split('__')
        node = config
        for parent in parents:
            node = node[int(parent) if parent.isdigit() else parent]
        node[last] = value
    return config


def test_a_new_run_and_an_unchanged_one_say_nothing(workdir, tmp_path):
    assert run_config.check_run_config(tmp_path / 'new', changed()) == []
    assert run_config.check_run_config(workdir, changed()) == []


def test_another_way_to_the_same_result_is_noted(workdir):
    assert run_config.check_run_config(workdir, changed(log_every=7)) == ['log_every: 50 -> 7']
    assert run_config.check_run_config(workdir, changed(data__placement='stream')) == [
        "data.placement: 'auto' -> 'stream'"
    ]


def test_a_run_can_be_made_longer(workdir):
    assert run_config.check_run_config(workdir, changed(phases__0__epochs=3.0)) == ['phases[0].epochs: 1.0 -> 3.0']
    longer = changed()
    longer['phases'] += longer['phases'] * 2
    assert run_config.check_run_config(workdir, longer) == ['2 more phases, from phases[1] on']


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'seed': 1}, r'seed: 0 -> 1'),
        ({'phases__0__epochs': 0.5}, r'phases\[0\].epochs: 1.0 -> 0.5'),
        ({'phases__0__learning_rate': 1.0}, r'phases\[0\].learning_rate: 0.001 -> 1.0'),
        ({'data__augment__flip': 0.1}, r'data.augment.flip: 0.5 -> 0.1'),
        ({'phases__0__rates': [['.*', 0.5]]}, r"phases\[0\].rates: \[\['\.\*', 1.0\]\] -> "),
        ({'checkpoint__every': 2.0}, r'checkpoint.every: 1.0 -> 2.0'),  # other evaluations, which select and stop
        ({'phases__0__augment': {'mixup': 0.9}}, r"phases\[0\].augment: {} -> \['phases\[0\].augment.mixup'\]"),
        ({'joint__units': {'weight': 1.0}}, r"joint: {} -> \['joint.units.weight'\]"),
        ({'phases': []}, r"phases\[0\].epochs: 1.0 -> 'removed'"),
    ],
)
def test_what_would_be_another_run_is_refused(workdir, fields, said):
    with pytest.raises(UserError, match=f'holds a run of another config; .*{said}.*Choose another --workdir'):
        run_config.check_run_config(workdir, changed(**fields))


def test_it_goes_on_all_the_same_where_that_is_asked_for(workdir):
    assert run_config.check_run_config(workdir, changed(seed=1), allow=True) == ['seed: 0 -> 1']


def test_a_damaged_record_is_named(workdir):
    (workdir / 'config.json').write_text('{')
    with pytest.raises(UserError, match=r'config.json is damaged'):
        run_config.check_run_config(workdir, changed())
