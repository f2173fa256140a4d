"""A folder or a manifest takes the place of a name."""

import pytest
from absl import flags

from fer_jax.config import defaults
from fer_jax.config.check import plain_config
from fer_jax.config.flags import checked_config, parse
from fer_jax.config.source import with_one_source
from fer_jax.errors import UserError
from fer_jax.pretrained import locate
from fer_jax.training import setup


@pytest.fixture(autouse=True)
def restored_flags():
    yield
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize(
    ('config', 'overrides', 'places'),
    [
        ('resnet50', ('data.dir=faces',), ('', 'faces', '')),
        ('resnet50', ('data.manifest=faces.csv',), ('', '', 'faces.csv')),
        ('resnet50', (), ('synthetic_faces', '', '')),
        ('fer2013_resnet18', ('data.dir=faces',), ('', 'faces', '')),
        ('resnet50', ('data.name=jaffe', 'data.dir=faces'), ('jaffe', 'faces', '')),
        ('resnet50', ('data.name=', 'data.dir=faces'), ('', 'faces', '')),
    ],
)
def test_the_place_on_the_command_line_is_meant(config, overrides, places):
    parse(['main', f'--config={config}', *(f'--config.{override}' for override in overrides)])
    data = checked_config().data
    assert (data.name, data.dir, data.manifest) == places


def test_in_python_a_folder_takes_the_place_of_the_default_name_alone():
    config = defaults.get_config()
    config.joint.theirs = defaults.task()
    config.data.dir, config.joint.theirs.data.manifest = 'faces', 'theirs.csv'
    plain = with_one_source(plain_config(config))
    assert plain['data']['name'] == '' == plain['joint']['theirs']['data']['name']
    config.data.name = 'jaffe'
    assert with_one_source(plain_config(config))['data']['name'] == 'jaffe'


def test_the_data_are_looked_at_before_weights_are_downloaded(tmp_path, monkeypatch):
    def download(*_):
        raise AssertionError('downloaded')

    monkeypatch.setattr(locate, '_download', download)
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path))
    parse(['main', '--config=resnet50', f'--config.data.dir={tmp_path / "none"}'])
    with pytest.raises(UserError, match='none.* is not a folder'):
        setup.prepare(plain_config(checked_config()))
