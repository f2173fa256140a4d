"""Config files: where a name that is given to --config is looked for, and the config that a file makes."""

import os
import runpy
from pathlib import Path

from ml_collections import ConfigDict

from fer_jax.errors import UserError
from fer_jax.utils import limits
from fer_jax.utils.choices import nearest
from fer_jax.utils.paths import user_path


def config_folders() -> tuple[Path, Path]:
    """Returns the folders that are searched for a config's name: that of the user, then the packaged one.

    An installed package has its configs inside, a checkout has them beside the package.
    """
    package = Path(__file__).parents[1]
    inside = package / 'configs'
    return Path('configs'), inside if inside.is_dir() else package.parent / 'configs'


def config_names() -> list[str]:
    """Returns the names of all configs that can be found."""
    return sorted({path.stem for folder in config_folders() for path in folder.glob('*.py')})


def find_config(given: str) -> str:
    """Finds the file of a config: the one at this path, else NAME.py in `config_folders`.

    Args:
      given: a path or a name, also with the argument of its `get_config`: 'vgg16_transfer:joint'.

    Returns:
      The path, with the same argument.

    Raises:
      UserError: there is no such file.
    """
    name, colon, argument = given.partition(':')
    name = str(user_path(name)) if name.startswith('~') else name
    paths = [name]
    if os.path.basename(name) == name:
        paths += [str(folder / f'{name}.py') for folder in config_folders()]
    for path in paths:
        if os.path.isfile(path):  # False of what cannot be a path, too
            return f'{path}{colon}{argument}'
    name = name[:200]
    raise UserError(
        f'--config={name!r} is not a file or the name of a config; {nearest(Path(name).stem, config_names())}'
    )


def get_config(given: str) -> ConfigDict:
    """Makes the config that `--config` would read, for use in Python: `get_config('quickstart')`.

    Args:
      given: a path or a name, also with the argument of its `get_config`: 'vgg16_transfer:joint'.

    Returns:
      The config; its fields can be set: `config.data.batch_size = 16`.

    Raises:
      UserError: there is no such file, or it makes no config.
    """
    path, *argument = find_config(given).split(':', 1)
    if (size := os.path.getsize(path)) > limits.CONFIG_BYTES:
        raise UserError(f'--config={given} has {size:,} bytes, at most {limits.CONFIG_BYTES:,} are read')
    try:
        config = runpy.run_path(path)['get_config'](*argument)
    except Exception as error:  # the file runs arbitrary code
        raise UserError(f'--config={given} cannot be loaded: {type(error).__name__}: {error}') from error
    if not isinstance(config, ConfigDict):
        raise UserError(f'--config={given}: get_config() gives {type(config).__name__}; it has to give a ConfigDict')
    return config
