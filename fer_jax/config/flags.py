"""The flag --config and the overrides of its keys; what absl and ml_collections say in tracebacks becomes one line."""

import re
from collections.abc import Iterator
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from fer_jax.config import defaults, schema
from fer_jax.config.check import check_config, find_mistakes, plain_config, raise_mistakes
from fer_jax.config.field import expected
from fer_jax.config.files import get_config
from fer_jax.config.likely import likely_paths
from fer_jax.config.source import replaced_places
from fer_jax.errors import UserError
from fer_jax.utils.paths import user_path

LONGEST_MESSAGE = 400  # characters of a message that are shown
MISSING = '--config is missing; for example --config quickstart, or --data DIR with images of your own'
OWN_FACES = 'own_faces'  # the config that --data chooses where --config is not given


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
flags.DEFINE_string(
    'data', '', f'Folder of class folders, or manifest; without --config it chooses --config {OWN_FACES}.'
)


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
    argv = with_data(argv)
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
            if isinstance(error, flags.UnrecognizedFlagError):
                mistakes.append(_unknown_flag(name))
            else:
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


def with_data(argv: list[str]) -> list[str]:
    """Writes `--data PLACE` as the flag of the config that names it, with `--config own_faces` where none is given.

    Args:
      argv: the name of the program and its flags.
    """
    for index, argument in enumerate(argv[1:], 1):
        flag, equals, place = argument.partition('=')
        if flag.lstrip('-') != 'data' or not flag.startswith('-') or not (equals or argv[index + 1 :]):
            continue
        place, rest = (place, argv[index + 1 :]) if equals else (argv[index + 1], argv[index + 2 :])
        field = 'manifest' if user_path(place).is_file() else 'dir'
        given = any(re.match(r'--?config(=|$)', other) for other in argv[1:])
        chosen = [] if given else [f'--config={OWN_FACES}']
        return [*argv[:index], *chosen, f'--config.data.{field}={place}', *rest]
    return argv


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
    match = re.match(r'flag --([^=]+)=', str(error))
    return match[1] if match else ''


def _without(argv: list[str], name: str) -> list[str]:
    """The arguments without a flag and its value."""
    left, of_flag = argv[:1], False
    for argument in argv[1:]:
        if of_flag and not argument.startswith('--'):
            of_flag = False
            continue
        key, equals, _ = argument.partition('=')
        matches = argument.startswith('-') and key.lstrip('-') in (name, f'no{name}')
        of_flag = matches and not equals
        left += [] if matches else [argument]
    return left


def _expectation(message: str) -> str | None:
    """What the field of an override takes, where absl says that its value is of another type."""
    match = re.match(r'flag --config\.([^=]+)=(.*?): ', message, re.DOTALL)
    if match is None:
        return None
    given = f'--config.{match[1]}={match[2][:80]}'
    if field := schema.field_at(match[1]):
        return f'{given}; expected {expected(field)} ({field.help})'
    return f'{given}; what lies below it has flags of its own, which --help_config lists'


def _overridden(argv: list[str]) -> list[str]:
    """The keys of overrides, as they are typed: 'config.phases[0].epochs'."""
    matches = (re.match(r'--?(?:no)?(config\.[^=]*)', argument) for argument in argv[1:])
    return [match[1] for match in matches if match]


def _is_unknown(key: str) -> bool:
    try:
        config_path.get_type(key.removeprefix('config.'), _parser.config)
    except Exception:  # which one depends on what it ends in
        return True
    return False


def _unknown(key: str) -> str:
    """Names the keys of the config that may be meant."""
    return f'--{key[:80]} is not a config key; {_nearest(key, list(keys(_parser.config)))}'


def _unknown_flag(name: str) -> str:
    """Names the flags, or the keys of the config, that may be meant."""
    config = _parser.config if flags.FLAGS['config'].present else defaults.get_config()
    modules = flags.FLAGS.flags_by_module_dict()
    own = [flag.name for module, defined in modules.items() if module.startswith('fer_jax.') for flag in defined]
    own = [flag for flag in own if not flag.startswith('config.')]
    return f'--{name[:80]} is not a flag; {_nearest(name, [*own, *keys(config)])}'


def _nearest(name: str, known: list[str]) -> str:
    """Returns 'the nearest is --x' of names of flags that are known."""
    names = likely_paths(name, known)
    return f'the nearest {"are" if names[1:] else "is"} {", ".join(f"--{path}" for path in names)}'


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
    CONFIG.value.auto = tuple(path for path in plain['auto'] if path not in given)
    return CONFIG.value
