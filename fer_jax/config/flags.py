"""The flag --config and the overrides of its keys; what absl and ml_collections say in tracebacks becomes one line."""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from fer_jax.config import schema
from fer_jax.config.check import check_config, plain_config
from fer_jax.config.field import expected
from fer_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment: a file of configs/.')
LONGEST_MESSAGE = 400  # characters of a message that are shown


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
        raise UserError(_expectation(str(error)) or str(error)[:LONGEST_MESSAGE]) from None
    except Exception as error:  # the config file runs arbitrary code
        raise _explained(argv, error) from error
    if len(rest) > 1:
        raise UserError(f'unexpected argument {rest[1]!r}; a flag reads --name=value')
    return rest


def _expectation(message: str) -> str | None:
    """What the field of an override takes, where absl says that its value is of another type."""
    found = re.match(r'flag --config\.([^=]+)=(.*?): ', message, re.DOTALL)
    if found is None:
        return None
    given = f'--config.{found[1]}={found[2][:80]}'
    if field := schema.field_at(found[1]):
        return f'{given}; expected {expected(field)} ({field.help})'
    return f'{given}; what lies below it has flags of its own, which --help_config lists'


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
            alike = [name for name in known if name.rpartition('.')[2] == key.rpartition('.')[2]]
            ordered = [name for names in (alike, known) for name in difflib.get_close_matches(key[:80], names, 3, 0.0)]
            names = ', '.join(f'--{name}' for name in list(dict.fromkeys(ordered))[:3])
            return UserError(f'--{key[:80]} is not a config key; the nearest are {names}')
    return UserError(f'the flags cannot be parsed: {type(error).__name__}: {error}')


def checked_config() -> ConfigDict:
    """The config that the flags give.

    Raises:
      UserError: there is none, it is none, or fields of it are wrong, all of which are named.
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
    check_config(plain_config(config))
    return config
