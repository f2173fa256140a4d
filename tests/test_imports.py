"""Imports run one way: main -> training -> checkpoints, steps, scoring ... -> models, pretrained, data -> partition."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'fer_jax'
LEAVES = {'errors', 'partition', 'metrics', 'sharding', 'cache', 'progress', 'processes', 'peers'}


def module_name(path: Path) -> str:
    """'fer_jax.models.resnet' of .../fer_jax/models/resnet.py; 'fer_jax.models' of its __init__.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob('*.py'))}


def imports(path: Path) -> set[str]:
    """What a file imports, wherever in it; `from fer_jax import x` counts as fer_jax.x where that is a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}:{node.lineno}: a relative import'
            members = {f'{node.module}.{alias.name}' for alias in node.names}
            found |= {member if member in MODULES else str(node.module) for member in members}
    return found


def roots(modules: Iterable[str]) -> set[str]:
    return {module.partition('.')[0] for module in modules}


IMPORTS = {name: imports(path) for name, path in MODULES.items()}
# The root stays out: its `train` and `load` are imported when they are asked for.
INNER = MODULES.keys() - {'fer_jax'}
OURS = {name: found & INNER for name, found in IMPORTS.items() if name in INNER}


def reached(part: str) -> set[str]:
    """The parts of the package ('data', 'steps') that one imports, also through others; without the leaves."""
    todo = [name for name in OURS if name.split('.')[1] == part]
    assert todo, f'fer_jax has no {part}'
    seen: set[str] = set()
    while todo:
        for name in OURS[todo.pop()] - seen:
            seen.add(name)
            todo.append(name)
    return {name.split('.')[1] for name in seen if name != 'fer_jax'} - LEAVES - {part}


def test_no_cycles():
    tuple(TopologicalSorter(OURS).static_order())  # raises CycleError, which names the cycle


@pytest.mark.parametrize('part', sorted(LEAVES))
def test_leaves_import_only_leaves(part):
    assert reached(part) == set()


@pytest.mark.parametrize(('part', 'allowed'), [('models', {'pretrained'}), ('pretrained', {'models'}), ('data', set())])
def test_lower_parts_know_nothing_above_them(part, allowed):
    assert reached(part) <= allowed


BESIDE = ['evaluate', 'export', 'predict', 'serve', 'scoring', 'steps', 'checkpoints', 'report']


@pytest.mark.parametrize('part', BESIDE)
def test_nothing_beside_main_needs_training(part):
    assert not reached(part) & {'main', 'training', 'setup'}


def test_only_what_starts_runs_imports_training():
    importers = {name for name, found in IMPORTS.items() if 'fer_jax.training' in found}
    assert importers == {'fer_jax', 'fer_jax.main', 'fer_jax.pooling'}
    assert not [name for name, found in IMPORTS.items() if 'fer_jax.main' in found]


def test_configs_are_seen_only_where_a_run_starts():
    users = {name for name in MODULES if roots(IMPORTS[name]) & {'ml_collections', 'configs'}}
    assert users <= {'fer_jax.main', 'fer_jax.training'}


@pytest.mark.parametrize('name', MODULES)
def test_no_second_framework(name):
    assert not roots(IMPORTS[name]) & {'tensorflow', 'torch', 'torchvision', 'timm', 'keras'}


def test_a_run_starts_without_what_it_may_not_need():
    code = 'import sys; from fer_jax import evaluate, training; print(*sys.modules)'
    command = [sys.executable, '-c', code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout.split()
    assert 'fer_jax.training' in loaded
    readers = {'PIL', 'array_record', 'cv2', 'grain', 'h5py', 'safetensors', 'tensorflow_datasets'}
    writers = {'clu', 'matplotlib', 'onnx', 'tensorboardX'}
    assert not roots(loaded) & (readers | writers | {'tensorflow', 'torch', 'scipy', 'sklearn'})


def test_main_answers_at_once():
    code = 'import sys, fer_jax.main; print(*sys.modules)'
    command = [sys.executable, '-c', code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout.split()
    assert 'fer_jax.main' in loaded
    assert not roots(loaded) & {'jax', 'flax', 'tensorflow', 'tensorflow_datasets', 'torch', 'matplotlib', 'PIL'}
