"""The flag --config and the overrides of its keys; what absl and ml_collections say in tracebacks becomes one line."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from fer_jax.config import schema
from fer_jax.config.check import check_config, find_mistakes, plain_config, raise_mistakes
from fer_jax.config.field import expected
from fer_jax.config.files import get_config
from fer_jax.config.source import replaced_places
from fer_jax.errors import UserError

LONGEST_MESSAGE = 400  # characters of a message that are shown
MISSING = '--config is missing; for example --config quickstart'


class NamedConfigParser(flags.ArgumentParser):
    """Loads a config by its path or its name."""

    config = ConfigDict()  # the one that was loaded last

    def parse(self, given: str) -> ConfigDict:
        self.config = get_config(given).lock()
        return self.config


_argv: list[str] = []  # where ml_collections looks for overrides, in place of sys.argv
_parser = NamedConfigParser()
CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment: NAME or FILE, or NAME:FORM.', sys_argv=_argv)
flags.FLAGS['config'].parser = _parser


def keys(config: Any, prefix: str = 'config') -> Iterator[str]:
    """Yields every key that can be overridden, as it is typed: 'config.phases[0].epochs'."""
    if isinstance(config, ConfigDict):
        for name in config:
            yield from keys(config[name], f'{prefix}.{name}')
    elif isinstance(config, tuple) and config and isinstance(config[0], ConfigDict):
        for index, item in enumerate(config):
            yield from keys(item, f'{prefix}[{index}]')
    else:
        yield prefix


def parse(argv: list[str]) -> list[str]:
    """Parses the flags, whatever earlier calls have parsed.

    Args:
      argv: the name of the program and its flags.

    Returns:
      The name of the program.

    Raises:
      UserError: flags or fields of the config are wrong, all of which are named.
    """
    mistakes: list[str] = []
    while True:
        try:
            rest = _parse(argv)
            break
        except UserError as error:
            raise_mistakes([*mistakes, str(error)])
        except flags.Error as error:
            name = _flag_of(error)
            if name.startswith('config.') and not flags.FLAGS['config'].present:
                raise UserError(MISSING) from None
            mistakes.append(_expectation(str(error)) or str(error)[:LONGEST_MESSAGE])
        except Exception as error:  # whatever ml_collections raises for an unknown key
            name = next(filter(_is_unknown, _overridden(argv)), '')
            mistakes.append(_unknown(name) if name else f'the flags cannot be parsed: {type(error).__name__}: {error}')
        shorter = _without(argv, name)
        if len(shorter) == len(argv):
            raise_mistakes(mistakes)
        argv = shorter
    if len(rest) > 1:
        mistakes.append(f'unexpected argument {rest[1]!r}; a flag reads --name=value')
    if mistakes and CONFIG.value:
        mistakes += find_mistakes(plain_config(CONFIG.value))
    raise_mistakes(mistakes)
    return rest


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags once, without those of an earlier call."""
    for name in [name for name in flags.FLAGS if name.startswith('config.')]:
        delattr(flags.FLAGS, name)
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in defined if module.startswith('fer_jax.') else ():
            flag.unparse()
    _argv[:] = argv
    return flags.FLAGS(argv)


def _flag_of(error: flags.Error) -> str:
    """The name of the flag that is wrong; '' where the error is of no single one."""
    if isinstance(error, flags.UnrecognizedFlagError):
        return error.flagname
    found = re.match(r'flag --([^=]+)=', str(error))
    return found[1] if found else ''


def _without(argv: list[str], name: str) -> list[str]:
    """The arguments without a flag and its value."""
    left, of_flag = argv[:1], False
    for argument in argv[1:]:
        if of_flag and not argument.startswith('--'):
            of_flag = False
            continue
        key, equals, _ = argument.partition('=')
        found = argument.startswith('-') and key.lstrip('-') in (name, f'no{name}')
        of_flag = found and not equals
        left += [] if found else [argument]
    return left


def _expectation(message: str) -> str | None:
    """What the field of an override takes, where absl says that its value is of another type."""
    found = re.match(r'flag --config\.([^=]+)=(.*?): ', message, re.DOTALL)
    if found is None:
        return None
    given = f'--config.{found[1]}={found[2][:80]}'
    if field := schema.field_at(found[1]):
        return f'{given}; expected {expected(field)} ({field.help})'
    return f'{given}; what lies below it has flags of its own, which --help_config lists'


def _overridden(argv: list[str]) -> list[str]:
    """The keys of overrides, as they are typed: 'config.phases[0].epochs'."""
    found = (re.match(r'--?(?:no)?(config\.[^=]*)', argument) for argument in argv[1:])
    return [match[1] for match in found if match]


def _is_unknown(key: str) -> bool:
    try:
        config_path.get_type(key.removeprefix('config.'), _parser.config)
    except Exception:  # which one depends on what it ends in
        return True
    return False


def _unknown(key: str) -> str:
    """Names the nearest keys of the config, those of the same last part first."""
    known = list(keys(_parser.config))
    alike = [name for name in known if name.rpartition('.')[2] == key.rpartition('.')[2]]
    ordered = [name for names in (alike, known) for name in difflib.get_close_matches(key[:80], names, 3, 0.0)]
    names = ', '.join(f'--{name}' for name in list(dict.fromkeys(ordered))[:3])
    return f'--{key[:80]} is not a config key; the nearest are {names}'


def checked_config() -> ConfigDict:
    """Returns the config that the flags give; a place of data that they name takes the place of others.

    Raises:
      UserError: there is none, or fields of it are wrong, all of which are named.
    """
    if not flags.FLAGS['config'].present:
        raise UserError(MISSING)
    plain = plain_config(CONFIG.value)
    check_config(plain)
    given = [name.removeprefix('config.') for name in _overridden(_argv)]
    for path, place in replaced_places(plain, given):
        group = CONFIG.value
        for part in path.split('.'):
            group = group[part]
        group[place] = ''
    return CONFIG.value
