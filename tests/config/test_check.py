"""What a config may not be: every mistake is named with its field, all of them at once, before anything is done."""

import copy
import json
import random
import time

import pytest
from ml_collections import config_dict

import fer_jax
from configs import default, repeat
from fer_jax.config import schema
from fer_jax.config.check import check_config, plain_config
from fer_jax.config.field import Field
from fer_jax.errors import UserError
from fer_jax.training import train

NAN, INFINITY = float('nan'), float('inf')


def whole_config():
    """A config with two phases, a joint task and a probe, as plain data."""
    config = default.get_config()
    config.phases = (default.phase(augment=default.augment('light')), default.phase())
    config.joint.smiles = default.task(0.5, name='celeb_a')
    config.probe = default.probe()
    return json.loads(config.to_json())


WHOLE = whole_config()


def changed(path, value):
    """The whole config with another value at a path of keys and indices."""
    config = copy.deepcopy(WHOLE)
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


def written(path):
    """('phases', 0, 'epochs') -> 'phases[0].epochs'."""
    return ''.join(f'[{key}]' if isinstance(key, int) else f'.{key}' for key in path).removeprefix('.')


def mistakes_of(config):
    with pytest.raises(UserError) as caught:
        check_config(config)
    return str(caught.value)


def leaves(tree, path=()):
    """(path, field) of every value of the config, and (path, None) of every group and list of groups."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        here = (*path, key)
        groups = isinstance(value, list) and value and isinstance(value[0], dict)
        if isinstance(value, dict) or groups:
            yield here, None
            yield from leaves(value, here)
        else:
            field = schema.field_at(written(here))
            assert field is not None
            yield here, field


PLACES = list(leaves(WHOLE))


def wrong_values(field: Field | None):
    """{kind of mistake: a value} that this field, or group, may not have."""
    if field is None:
        return {'nesting': 3, 'text': 'x', 'nothing': None, 'list': [1]}
    wrong = {'nothing': None, 'nesting': {'x': 1}, 'list of dicts': [{'x': 1}]}
    if field.kind in ('int', 'float'):
        wrong |= {'text': 'many', 'NaN': NAN, 'infinity': INFINITY, 'vast': 1e300, 'truth': True, 'list': [1]}
        if field.kind == 'int':
            wrong |= {'part': 1.5, 'of thousands of digits': 10**5000}
        lowest = field.low if field.low is not None else field.above
        if not field.choices:
            wrong |= {'below': lowest - 1}
            wrong |= {'above': field.high + 1 if field.high is not None else field.below}
        if field.above is not None:
            wrong |= {'just below': field.above}
    elif field.kind == 'bool':
        wrong |= {'number': 1, 'text': 'yes'}
    else:
        wrong |= {'number': 7, 'truth': False}
        wrong |= {'choice': 'nothing-like-it'} if field.choices else {}
        wrong |= {'list': ['a']} if field.kind in ('str', 'regex') else {'text': 'many'}
    return wrong


def draw(number):
    """(config, text that its message has to begin with) with one mistake, drawn by `number`."""
    chance = random.Random(number)
    path, field = chance.choice(PLACES)
    if chance.random() < 0.2:
        inside = path if field is None and isinstance(path[-1], str) and path[-1] not in ('phases', 'joint') else ()
        key = chance.choice(['items', 'to_json', 'batchsize', 'nam', '', 'x' * 5000, 'a\nb'])
        return changed((*inside, key), 1), (written((*inside, key)) if key in ('batchsize', 'nam') else '')
    wrong = wrong_values(field)
    return changed(path, wrong[chance.choice(sorted(wrong))]), written(path)


def test_the_whole_config_has_no_mistake():
    check_config(WHOLE)
    groups = {'joint', 'phases', 'phases[i].augment', 'joint.<name>.data', 'joint.<name>.loss'}
    assert {field.path for _, field in PLACES if field} | groups == {field.path for field in schema.FIELDS}


@pytest.mark.parametrize('number', range(100))
def test_a_mistake_drawn_at_random_is_named(number):
    config, begin = draw(number)
    started = time.perf_counter()
    message = mistakes_of(config)
    assert time.perf_counter() - started < 1
    assert message.startswith(begin) and '\n' not in message and len(message) < 1500
    assert 'expected' in message or 'nearest' in message


def test_every_wrong_value_of_every_field_is_named():
    for path, field in PLACES:
        for kind, value in wrong_values(field).items():
            message = mistakes_of(changed(path, value))
            assert message.startswith(written(path)), (kind, message)


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        ('data.batch_size', 0, 'data.batch_size=0; expected a whole number from 1 to 1,000,000 (global batch size'),
        ('data.batch_size', -3, 'data.batch_size=-3; expected a whole number from 1'),
        ('data.batch_size', 1e6, 'data.batch_size=1000000.0; expected a whole number from 1'),
        ('phases.0.learning_rate', -1, 'phases[0].learning_rate=-1; expected a number above 0, up to 1,000,000'),
        ('phases.1.learning_rate', NAN, 'phases[1].learning_rate=nan; expected a number above 0'),
        ('phases.0.epochs', 1e300, 'phases[0].epochs=1e+300; expected a number above 0, up to 1,000,000'),
        ('phases.0.image_size', 7, 'phases[0].image_size=7; expected a whole number from 8 to 4,096, or 0'),
        ('phases.0.optimizer', 'adm', "phases[0].optimizer='adm' is unknown; the nearest is adam, of sgd, adam, adamw"),
        ('phases.0.augment.flip', 2, 'phases[0].augment.flip=2; expected a number from 0 to 1'),
        ('phases.0.rates', [['(', 1.0]], "phases[0].rates=[['(', 1.0]]; expected a list of pairs, each of a regular"),
        ('phases.0.rates', [['.*', -1]], "phases[0].rates=[['.*', -1]]; expected a list of pairs"),
        ('phases.0.rates', [['.*', NAN]], "phases[0].rates=[['.*', nan]]; expected a list of pairs"),
        ('phases.0.rates', [], 'phases[0].rates=[]; expected'),
        ('phases', [], 'phases=[]; expected a list of phases, one or more'),
        ('phases', {'epochs': 1}, "phases={'epochs': 1}; expected a list of phases"),
        ('log_every', 0, 'log_every=0; expected a whole number from 1'),
        ('checkpoint.every', 1e-12, 'checkpoint.every=1e-12; expected a number from 0.001'),
        ('checkpoint.select', 'test/accuracy', 'the test split is not allowed, its score would be optimistic'),
        ('parallel.devices', 1e6, 'parallel.devices=1000000.0; expected a whole number from 0 to 65,536'),
        ('model.image_size', 10**9, 'model.image_size=1000000000; expected a whole number from 8 to 4,096'),
        ('model.channels', 2, 'model.channels=2; expected one of 1, 3'),
        ('model.channels', True, 'model.channels=True; expected one of 1, 3'),
        ('model.name', 'resnet19', "model.name='resnet19' is unknown; the nearest are resnet18 and"),
        ('model.head_inputs', ['layer3', 4], "model.head_inputs=['layer3', 4]; expected a list of texts"),
        ('loss.class_weights', 'inverted', "loss.class_weights='inverted'; expected one of none, inverse, effective"),
        (
            'loss.class_weights',
            [1, 0],
            'loss.class_weights=[1, 0]; expected one of none, inverse, effective, or a list',
        ),
        ('loss.class_weights', [1, NAN], 'loss.class_weights=[1, nan]; expected one of none'),
        ('loss.label_smoothing', 1.5, 'loss.label_smoothing=1.5; expected a number from 0 up to, not including, 1'),
        ('loss.gamma', -1.0, 'loss.gamma=-1.0; expected a number from 0'),
        ('loss.q', 0.0, 'loss.q=0.0; expected a number above 0, up to 1'),
        ('loss.q', 1.1, 'loss.q=1.1; expected a number above 0, up to 1'),
        ('loss.tau', -0.1, 'loss.tau=-0.1; expected a number from 0'),
        ('loss.positive_weights', 'invers', "loss.positive_weights='invers'; expected one of none, inverse, or a list"),
        ('loss.consistency', -1.0, 'loss.consistency=-1.0; expected a number from 0'),
        ('distil.temperature', 0.0, 'distil.temperature=0.0; expected a number above 0'),
        ('distil.weight', 1.5, 'distil.weight=1.5; expected a number from 0 to 1'),
        ('joint.smiles.weight', -1.0, 'joint.smiles.weight=-1.0; expected a number from 0'),
        ('phases.0.cache_dtype', 'float16', "phases[0].cache_dtype='float16' is unknown; the nearest is bfloat16, of"),
        (
            'phases.0.cache_views',
            -1,
            'phases[0].cache_views=-1; expected a whole number from 0 to 10,000 (number of views',
        ),
        ('probe.seeds', [], 'probe.seeds=[]; expected a list of whole numbers from 0 to 4,294,967,295, not empty'),
        ('probe.pool', 0, 'probe.pool=0; expected a whole number from 1'),
        ('on_nonfinite', 'skp', "on_nonfinite='skp' is unknown; the nearest is skip, of stop, skip"),
        ('loss.beta', 1.0, 'loss.beta=1.0; expected a number from 0 up to, not including, 1'),
        ('data.subject', '(', "data.subject='('; expected a regular expression"),
        ('data.rename', [['a']], "data.rename=[['a']]; expected a list of pairs of texts"),
        ('data.folds', 2, 'data.folds=2; expected a whole number from 3 to 10,000, or 0'),
        ('data.augment.erase_area', [0.3, 0.1], 'data.augment.erase_area=[0.3, 0.1]; expected a pair'),
        ('data.augment.erase_area', [0.1], 'data.augment.erase_area=[0.1]; expected a pair'),
        ('data.augment.rotation', 10, 'data.augment.rotation is not a config key; the nearest is data.augment.rotate'),
        (
            'data.optimizer',
            'sgd',
            'data.optimizer is not a config key; the nearest are parallel.optimizer, phases[i].o',
        ),
        ('batch_size', 8, 'batch_size is not a config key; the nearest are data.batch_size, probe.batch_size'),
        ('joint.smiles.head', 'frown', "joint.smiles.head='frown' is unknown; the nearest is"),
        ('joint.smiles.weight', INFINITY, 'joint.smiles.weight=inf; expected a number from 0'),
        ('joint.smiles.data.augment', {}, 'joint.smiles.data.augment is not a config key'),
        ('joint.primary', {}, 'joint.primary: a task needs a name of letters and digits, other than primary'),
        ('joint.a b', {}, 'joint.a b: a task needs a name'),
        ('joint', [], 'joint=[]; expected tasks by name'),
        ('probe.stages', [], 'probe.stages=[]; expected a list of texts, not empty'),
        ('probe', None, 'probe=None; expected the fields probe.stages, probe.pool, probe.mirror, ...'),
        ('seed', -1, 'seed=-1; expected a whole number from 0 to 4,294,967,295'),
    ],
)
def test_a_mistake_is_named(path, value, message):
    keys = [int(key) if key.isdecimal() else key for key in path.split('.')]
    assert message in mistakes_of(changed(keys, value))


def test_all_mistakes_are_told_at_once():
    config = changed(('data', 'batch_size'), 0)
    config['phases'][1]['learning_rate'] = NAN
    config['loss']['nam'] = 'focal'
    config['joint']['smiles']['data']['fold'] = -1
    del config['seed'], config['parallel']['wait']
    first, *lines = mistakes_of(config).splitlines()
    assert first == 'the config has 6 mistakes:'
    begins = ('loss.nam ', 'the config has no seed', 'data.batch_size=0', 'joint.smiles.data.fold=-1')
    for begin in (*begins, 'phases[1].learning_rate=nan', 'parallel has no wait'):
        assert sum(line.startswith(f'  {begin}') for line in lines) == 1, begin


@pytest.mark.parametrize('config', [None, [], 'x', 3, [['data', 1]]])
def test_what_is_no_config_is_refused(config):
    assert 'expected the fields seed, model, data, ...' in mistakes_of(config)


def test_a_hostile_config_is_answered_quickly():
    started = time.perf_counter()
    assert mistakes_of(WHOLE | {f'key{number}': 1 for number in range(200_000)}).startswith(
        'the config has more than 50'
    )
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert mistakes_of(changed(('data', 'name'), deep)).startswith('data.name=')
    assert len(mistakes_of(changed(('data', 'label'), 'x' * 10**6))) < 400
    assert len(mistakes_of(changed(('model', 'head_inputs'), [1] * 10**6))) < 400
    assert mistakes_of(WHOLE | {5: 1}).startswith('5 is not a config key')
    assert time.perf_counter() - started < 5


def test_what_json_cannot_hold_is_refused():
    config = default.get_config()
    config.data.name = config_dict.placeholder(str, required=True)
    with pytest.raises(UserError, match=r'cannot be written as JSON \(RequiredValueError'):
        plain_config(config)
    with pytest.raises(UserError, match=r'cannot be written as JSON \(TypeError'):
        plain_config(WHOLE | {'seed': object()})
    config = default.get_config()
    config.data.dir = config_dict.placeholder(str)
    assert mistakes_of(plain_config(config)).startswith('data.dir=None; expected a text (folder')


def test_training_begins_with_the_check(tmp_path, monkeypatch):
    def untouched(*_, **__):
        raise AssertionError('something was done before the config was checked')

    monkeypatch.setattr(train.setup, 'prepare', untouched)
    monkeypatch.setattr(train, 'free_workdir', untouched)
    config = default.get_config()
    config.log_every = 0
    config.data.batch_size = 0
    for given in (config, json.loads(config.to_json()), WHOLE | {'log_every': 0, 'max_skipped': -1}):
        with pytest.raises(UserError, match=r'the config has 2 mistakes:\n(.*\n)?  log_every=0; expected'):
            fer_jax.train(given, tmp_path / 'run')
    assert not list(tmp_path.iterdir())


def test_the_config_of_an_older_run_gets_what_is_newer(tmp_path):
    older = copy.deepcopy(WHOLE)
    del older['max_skipped'], older['phases'][1]['stop_after'], older['joint']['smiles']['data']['train_examples']
    (tmp_path / 'config.json').write_text(json.dumps(older))
    config = json.loads(repeat.get_config(str(tmp_path)).to_json())
    check_config(config)
    assert config == WHOLE
