"""Imports point down: commands -> training, exporters -> ... -> models, data -> distributed -> utils -> errors."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'fer_jax'
FILES_AT_THE_TOP = 17
LINES_OF_A_FILE = 350
COMMANDS = {
    'checkpoints', 'convert_weights', 'cross_evaluate', 'evaluate', 'export', 'group_faces', 'main',
    'predict', 'prepare_dataset', 'preview_augmentation', 'pseudo_label', 'report', 'serve',
}  # fmt: skip
FORWARDS = {'photographs'}  # old names, for one release
LAYERS = (
    {'errors'}, {'utils'}, {'distributed', 'config'}, {'models', 'data'}, {'pretrained', 'feature_cache'}, {'runs'},
    {'inference'}, {'evaluation'}, {'reporting'}, {'training', 'exporters'}, {'cli'}, COMMANDS | FORWARDS,
)  # fmt: skip
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


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


def part_of(name: str) -> str:
    """'models' of fer_jax.models.resnet, 'evaluate' of fer_jax.evaluate."""
    return name.split('.')[1]


IMPORTS = {name: imports(path) for name, path in MODULES.items()}
# The root stays out: its `train` and `load` are imported when they are asked for.
INNER = MODULES.keys() - {'fer_jax'}
OURS = {name: found & INNER for name, found in IMPORTS.items() if name in INNER}


def test_no_cycles():
    tuple(TopologicalSorter(OURS).static_order())  # raises CycleError, which names the cycle


def test_every_part_has_a_layer():
    assert {part_of(name) for name in INNER} <= LEVEL.keys()


@pytest.mark.parametrize('name', sorted(INNER))
def test_imports_point_down(name):
    here = part_of(name)
    for other in sorted(OURS[name]):
        part = part_of(other)
        assert part == here or LEVEL[part] < LEVEL[here], f'{name} imports {other}'


def test_configs_are_seen_only_where_a_run_starts():
    users = {name for name in MODULES if roots(IMPORTS[name]) & {'ml_collections', 'configs'}}
    assert {name for name in users if not name.startswith('fer_jax.config.')} <= {
        'fer_jax.main',
        'fer_jax.training.train',
    }


@pytest.mark.parametrize('name', MODULES)
def test_no_second_framework(name):
    assert not roots(IMPORTS[name]) & {'tensorflow', 'torch', 'torchvision', 'timm', 'keras'}


def test_files_are_few_at_the_top_and_short():
    assert len(list(PACKAGE.glob('*.py'))) <= FILES_AT_THE_TOP
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > LINES_OF_A_FILE} == {}


def loaded_by(code: str) -> list[str]:
    command = [sys.executable, '-c', f'import sys; {code}; print(*sys.modules)']
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout.split()


def test_a_run_starts_without_what_it_may_not_need():
    loaded = loaded_by('from fer_jax import evaluate; from fer_jax.training import train')
    assert 'fer_jax.training.train' in loaded
    readers = {'PIL', 'array_record', 'cv2', 'grain', 'h5py', 'safetensors', 'tensorflow_datasets'}
    writers = {'jinja2', 'matplotlib', 'onnx', 'tensorboardX'}
    assert not roots(loaded) & (readers | writers | {'tensorflow', 'torch', 'scipy', 'sklearn'})


def test_main_answers_at_once():
    loaded = loaded_by('import fer_jax.main, fer_jax.cli')
    assert {'fer_jax.main', 'fer_jax.cli'} <= set(loaded)
    frameworks = {'jax', 'flax', 'tensorflow', 'tensorflow_datasets', 'torch'}
    assert not roots(loaded) & (frameworks | {'jinja2', 'matplotlib', 'PIL'})
