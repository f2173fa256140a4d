"""The flag --config and the overrides of its keys; what absl and ml_collections say in tracebacks becomes one line."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from fer_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment: a file of configs/.')
SECTIONS = ('seed', 'model', 'data', 'loss', 'distil', 'joint', 'phases', 'checkpoint', 'parallel', 'log_every')


def keys(config: Any, prefix: str = 'config') -> Iterator[str]:
    """Every key that can be overridden, as it is typed: 'config.phases[0].epochs'."""
    if isinstance(config, ConfigDict):
        for name in config:
            yield from keys(config[name], f'{prefix}.{name}')
    elif isinstance(config, tuple) and config and isinstance(config[0], ConfigDict):
        for index, item in enumerate(config):
            yield from keys(item, f'{prefix}[{index}]')
    else:
        yield prefix


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; what absl and ml_collections say in tracebacks becomes one message."""
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(str(error)) from None
    except Exception as error:  # the config file runs arbitrary code
        raise _explained(argv, error) from error
    if len(rest) > 1:
        raise UserError(f'unexpected argument {rest[1]!r}; a flag reads --name=value')
    return rest


def _explained(argv: list[str], error: Exception) -> UserError:
    """An override of an unknown key names its nearest; another failure is the config file's own."""
    pairs = zip(argv, [*argv[1:], ''], strict=True)
    chosen = [
        argument.partition('=')[2] or following
        for argument, following in pairs
        if argument.partition('=')[0] in ('--config', '-config')
    ]
    path = chosen[-1] if chosen else ''
    try:
        known = list(keys(ConfigFileFlagParser('config').parse(path)))
    except Exception as failure:  # the config file runs arbitrary code
        return UserError(f'--config={path} cannot be loaded: {type(failure).__name__}: {failure}')
    for argument in argv[1:]:
        key = argument.lstrip('-').partition('=')[0]
        if key.startswith('config.') and key not in known:
            nearest = ', '.join(f'--{name}' for name in difflib.get_close_matches(key, known, n=3, cutoff=0.0))
            return UserError(f'--{key} is not a config key; the nearest are {nearest}')
    return UserError(f'the flags cannot be parsed: {type(error).__name__}: {error}')


def checked_config() -> ConfigDict:
    """The config that the flags give.

    Raises:
      UserError: there is none, or it is none.
    """
    if not flags.FLAGS['config'].present:
        raise UserError('--config is missing; for example --config configs/quickstart.py')
    path = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')[0]
    if not os.path.isfile(path):  # False of what cannot be a path, too
        there = ', '.join(sorted(str(file) for file in Path('configs').glob('*.py')))
        raise UserError(f'--config={path!r} is not a file' + (f'; there are {there}' if there else ''))
    config = CONFIG.value
    if not isinstance(config, ConfigDict):
        raise UserError(f'--config={path}: get_config() gives {type(config).__name__}; it has to give a ConfigDict')
    if missing := [name for name in SECTIONS if name not in config]:
        raise UserError(f'--config={path} has no {", ".join(missing)}; begin with configs.default.get_config()')
    if not (isinstance(config.seed, int) and 0 <= config.seed < 1 << 32):
        raise UserError(f'config.seed={config.seed!r}; expected a whole number from 0 to {(1 << 32) - 1}')
    return config
