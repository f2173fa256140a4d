"""The schema against what it describes: the defaults, the experiments, the code that reads the fields, the pages."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from configs import default
from fer_jax import main, models
from fer_jax.config import choices, reference, schema
from fer_jax.config.check import check_config, plain_config
from fer_jax.data import dataset
from fer_jax.data.augmentation.augment import Augment
from fer_jax.models.network import DTYPES
from fer_jax.runs.checkpoints import SELECTABLE

REPOSITORY = Path(__file__).parents[2]
BEFORE = Path(__file__).with_name(
    'defaults.json'
)  # of the functions that listed the defaults before there was a schema
FORMS = {
    'fer2013_record': ('fer2013', 'ferplus'),
    'fer2013_speedrun': ('15', '60', 'scratch', 'gpu_1', 'gpu_5'),
    'reliability': ('everything', 'feature_cache', 'two_devices', 'two_processes'),
    'vgg16_transfer': ('target', 'joint'),
    'vggface_two_stage': ('identities', 'expression'),
}
EXPERIMENTS = sorted(path.stem for path in (REPOSITORY / 'configs').glob('*.py') if path.stem != 'repeat')


def test_defaults_are_what_they_were():
    made = {
        'config': default.get_config(),
        'task': default.task(),
        'probe': default.probe(),
        'augment': default.augment('none'),
    }
    before = json.loads(BEFORE.read_text())
    assert {name: config.to_json() for name, config in made.items()} == {
        name: json.dumps(config) for name, config in before.items()
    }


def test_defaults_of_two_configs_are_not_one_object():
    first, second = default.phase(), default.phase()
    first.augment.flip = 1.0
    assert not second.augment and not schema.PHASE_TREE['augment'].default


def paths(tree, prefix=''):
    """Every path of nested dicts, with those of a phase, a task and a probe called as the schema calls them."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from paths(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}'


def test_every_field_stands_in_the_schema_once():
    before = json.loads(BEFORE.read_text())
    (phase,) = before['config']['phases']
    task = before['task'] | {'data': {}, 'loss': {}}
    known = [*paths(before['config']), *paths(phase, 'phases[i].'), *paths(task, 'joint.<name>.')]
    known += paths(before['probe'], 'probe.')
    told = [field.path for field in schema.FIELDS]
    assert len(set(told)) == len(told)
    assert set(told) == set(known)
    assert set(before['task']['data']) == set(schema.TASK_DATA_TREE)
    assert all(field.help and not field.help.endswith('.') and '\n' not in field.help for field in schema.FIELDS)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_the_experiments_have_no_mistake(name):
    module = importlib.import_module(f'configs.{name}')
    for form in FORMS.get(name, (None,)):
        check_config(plain_config(module.get_config(form) if form else module.get_config()))


def test_a_run_of_several_tasks_and_presets_have_no_mistake():
    config = default.get_config()
    config.joint.smiles = default.task(0.5, name='celeb_a', annotation='attributes')
    config.phases = tuple(default.phase(augment=default.augment(preset)) for preset in ('none', 'fer', 'strong'))
    config.loss = config.loss.to_dict() | {'class_weights': (1, 2.5)}
    check_config(plain_config(config))
    check_config(json.loads(config.to_json()) | {'probe': json.loads(default.probe().to_json())})


def test_choices_are_those_of_the_code():
    assert tuple(choices.NETWORKS) == tuple(models.NAMES)
    assert tuple(DTYPES) == choices.DTYPES
    assert tuple(SELECTABLE) == choices.SELECTABLE
    assert set(dataset.SOURCE) <= set(schema.RUN_TREE['data'])
    assert list(schema.AUGMENT_TREE) == [field.name for field in dataclasses.fields(Augment)]
    assert Augment.of(schema.defaults_of(schema.AUGMENT_TREE) | {'flip': 0.0}) == Augment()


def test_a_path_of_a_config_leads_to_its_field():
    for path, expected in (
        ('seed', 'seed'),
        ('data.augment.flip', 'data.augment.flip'),
        ('phases[12].epochs', 'phases[i].epochs'),
        ('phases[-1].augment.flip', 'data.augment.flip'),
        ('joint.smiles.weight', 'joint.<name>.weight'),
        ('joint.smiles.data', 'joint.<name>.data'),
        ('joint.smiles.data.splits.train', 'data.splits.train'),
        ('joint.smiles.loss.gamma', 'loss.gamma'),
        ('probe.pool', 'probe.pool'),
    ):
        field = schema.field_at(path)
        assert field is not None and field.path == expected
    assert schema.field_at('data') is None and schema.field_at('phases[0]') is None


def test_help_names_every_field_in_a_line_of_its_own(capsys):
    main.command(['fer_jax', '--help_config'])
    lines = capsys.readouterr().out.splitlines()
    for field in schema.FIELDS:
        (line,) = [line for line in lines if line.startswith(f'  {field.path}  ')]
        assert line.endswith(field.help) and 'default' in line
    headings = [line for line in lines if line and not line.startswith(' ')]
    assert headings == list(schema.SECTIONS.values())
    field = 'data.batch_size  int from 1 to 1,000,000, default 64'
    assert f'  {field}  global batch size: images of a training step, over all devices' in lines


def test_the_page_is_that_of_the_schema():
    """To write it anew: python -c "from fer_jax.config import reference; print(reference.page(), end='')"."""
    assert (REPOSITORY / 'docs' / 'reference' / 'config.md').read_text() == reference.page()
