"""Which cells scripts/experiments/transfer.py has, and what becomes of those that cannot be filled."""

import argparse

import pytest

from fer_jax.errors import UserError
from scripts.experiments import transfer


def asked(networks='resnet18', weights='scratch,imagenet', methods='linear,full'):
    return argparse.Namespace(networks=networks, weights=weights, methods=methods)


def test_fresh_weights_are_trained_whole_alone():
    assert list(transfer.chosen(asked())) == [
        ('resnet18', 'scratch', 'full'),
        ('resnet18', 'imagenet', 'linear'),
        ('resnet18', 'imagenet', 'full'),
    ]
    whole = asked(*map(','.join, (transfer.NETWORKS, transfer.WEIGHTS, transfer.METHODS)))
    assert len(list(transfer.chosen(whole))) == 10 * (1 + 3 * 5)


def test_unknown_names_are_one_message():
    with pytest.raises(UserError, match='--networks: alexnet unknown; choose of vgg16, resnet18'):
        list(transfer.chosen(asked(networks='resnet18,alexnet')))


def test_a_cell_without_weights_is_empty_and_its_reason_stands_below(tmp_path):
    named = {'network': 'resnet18', 'method': 'full'}
    rows = [
        named | {'weights': 'imagenet', 'absent': 'no weights are here'},
        named | {'weights': 'scratch', 'accuracy': 0.5, 'accuracy_ci95': [0.48, 0.52], 'minutes': 2.0},
    ]
    lines = transfer.table(rows).splitlines()
    assert lines[2:4] == ['| resnet18 | imagenet | - |', '| resnet18 | scratch | 50.00 % [48.0, 52.0] (2.0 min) |']
    assert lines[-1] == '- resnet18, imagenet: no weights are here'
    transfer.plot(tmp_path / 'plot.png', rows)
    transfer.plot(tmp_path / 'empty.png', rows[:1])
    assert (tmp_path / 'plot.png').stat().st_size > (tmp_path / 'empty.png').stat().st_size > 0
