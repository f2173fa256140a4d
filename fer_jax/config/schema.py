"""Every field of a config, once: the source of the defaults, the checks, `--help_config` and the reference page."""

import re
from collections.abc import Sequence
from typing import Any

from fer_jax.config.data_fields import AUGMENT, DATA
from fer_jax.config.field import Field
from fer_jax.config.model_fields import DISTIL, LOSS, MODEL
from fer_jax.config.training_fields import FRAME, PHASE, PROBE, SEED, TASK, TASKS_AND_PHASES

Tree = dict[str, Any]  # name -> Field, or the tree of what lies below
SHARED = ('augment', 'placement', 'workers')  # fields of data that joint tasks have in common with the primary one

FIELDS = (*SEED, *MODEL, *DATA, *LOSS, *DISTIL, *TASKS_AND_PHASES, *FRAME, *PHASE, *TASK, *PROBE)
SECTIONS = {
    'run': 'Run',
    'model': 'Network',
    'data': 'Data',
    'data.augment': 'Augmentation',
    'loss': 'Loss',
    'distil': 'Distillation',
    'phases': 'Phases: phases[0], phases[1], ...',
    'joint': 'Further tasks',
    'checkpoint': 'Evaluation and checkpoints',
    'parallel': 'Devices and processes',
    'probe': 'Probe: a grid of heads on frozen features',
}


def section_of(field: Field) -> str:
    """Returns the key of `SECTIONS` under which the field is shown."""
    first = re.split(r'[.\[]', field.path)[0]
    if field.path.startswith('data.augment.'):
        return 'data.augment'
    return first if first in SECTIONS else 'run'


def field_at(path: str) -> Field | None:
    """Returns the field at a path such as 'phases[1].epochs' or 'joint.smiles.data.name', or None."""
    path = re.sub(r'^phases\[-?\d+\]', 'phases[i]', path)
    path = re.sub(r'^joint\.[^.]+\.(?=(weight|head|align|data|loss)$)', 'joint.<name>.', path)
    path = re.sub(r'^joint\.[^.]+\.(?=(data|loss)\.)', '', path)
    path = path.replace('phases[i].augment.', 'data.augment.')
    return next((field for field in FIELDS if field.path == path), None)


def tree_of(fields: Sequence[Field], below: str = '') -> Tree:
    """Returns fields as nested dicts, by the parts of their paths.

    Args:
      fields: fields whose paths begin with `below`.
      below: prefix that is removed from the paths.
    """
    tree: Tree = {}
    for field in fields:
        *groups, name = field.path.removeprefix(below).split('.')
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = field
    return tree


def defaults_of(tree: Tree) -> dict[str, Any]:
    """Returns the defaults of a tree of fields, as nested dicts."""
    return {name: member.default if isinstance(member, Field) else defaults_of(member) for name, member in tree.items()}


RUN_TREE = tree_of((*SEED, *MODEL, *DATA, *LOSS, *DISTIL, *TASKS_AND_PHASES, *FRAME))
PHASE_TREE = tree_of(PHASE, 'phases[i].')
TASK_TREE = tree_of(TASK, 'joint.<name>.')
PROBE_TREE = tree_of(PROBE, 'probe.')
AUGMENT_TREE = tree_of(AUGMENT, 'data.augment.')
TASK_DATA_TREE = {name: member for name, member in RUN_TREE['data'].items() if name not in SHARED}
