"""The config of an earlier run, to repeat it or to change a field of it.

fer-jax train --config repeat:runs/x --workdir runs/again --config.seed=1
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax.config import defaults
from fer_jax.utils import checked_files


def get_config(workdir: str = '') -> ConfigDict:
    path = Path(workdir) / 'config.json'
    if not path.is_file():
        raise ValueError(f'{path} is not a file; give the folder of a run: repeat:runs/x')
    config = thawed(checked_files.read_json(path, 'take it from a copy of that run'))
    assert isinstance(config, ConfigDict)
    add_newer(config, defaults.get_config())
    for phase in config.phases:
        add_newer(phase, defaults.phase())
    for task in config.joint.values():
        add_newer(task, defaults.task())
    return config


def add_newer(config: ConfigDict, known: ConfigDict) -> None:
    """Fields that came with a newer version get their defaults."""
    for name, value in known.items():
        if name not in config:
            config[name] = value
        elif isinstance(value, ConfigDict) and isinstance(config[name], ConfigDict):
            add_newer(config[name], value)


def thawed(value: Any) -> Any:
    """Dicts as ConfigDicts and lists as tuples, so that fields of phases can be overridden."""
    if isinstance(value, dict):
        return ConfigDict({key: thawed(item) for key, item in value.items()})
    return tuple(map(thawed, value)) if isinstance(value, list) else value
