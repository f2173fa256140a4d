"""Names that were replaced, since they say little or mean something else in machine learning, do not come back."""

import ast
from collections.abc import Iterator
from pathlib import Path

import fer_jax

ROOT = Path(fer_jax.__file__).parent
FILES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob('*.py'))}

GONE_MODULES = """
    agreement annotate builders divergence doctor doctor_table drift elsewhere extra_losses families features
    feed frames graph integrity mix order pacing partition peers picture_sheet pictures pooling probe_report
    profiling records rehearsal report_images report_sections roles scorer scoring selected start steps
"""
GONE_ANYWHERE = """
    Agreement FeatureFeed Feed Feeds Fixed Look Pace Recipe Setup Told TrainFeatures TrainFeed boundary_recipe
    current damage enter feed feed_for first_alone gather hosts in_turn key_of kept located meet narrowed
    of_run one_by_one one_writer places resident restore said said_by scored seal set_aside shares taught tell
    told whole_step AHEAD ARRIVES ASIDE BATCH BEAT CHUNK GRACE LARGEST LEFT LONGEST MOST OF_FEATURES OF_IMAGES
    PATIENCE RESOLVING TIMEOUT TRIES TURN
"""
GONE_FUNCTIONS = 'check first read write'  # of a module; what every data set has to have is called `read`
GONE_FIELDS = 'look'
GONE_VARIABLES = 'at found of one said told'


def definitions(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(kind, name) of the functions, classes and constants of a module, and of methods and fields of its classes."""
    for node in tree.body:
        yield from _defined(node, 'function', 'constant')
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                yield from _defined(member, 'method', 'field')
            for each in ast.walk(node):
                if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
                    yield 'field', each.attr


def _defined(node: ast.stmt, function: str, value: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield function, node.name
    elif isinstance(node, ast.ClassDef):
        yield 'class', node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from ((value, each.id) for each in ast.walk(target) if isinstance(each, ast.Name))


def test_replaced_names_stay_away():
    found = []
    for file, path in FILES.items():
        gone = {'field': {*GONE_FIELDS.split()}}
        if not file.startswith('data/sets/'):
            gone['function'] = {*GONE_FUNCTIONS.split()}
        names = set(definitions(ast.parse(path.read_text())))
        found += [(file, name) for kind, name in names if name in gone.get(kind, set()) | {*GONE_ANYWHERE.split()}]
        found += [(file, part) for part in (*Path(file).parent.parts, Path(file).stem) if part in GONE_MODULES.split()]
    assert not found


def test_variables_and_arguments_have_names_that_say_what_they_hold():
    found = []
    for file, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if stored else node.arg if isinstance(node, ast.arg) else ''
            found += [(file, node.lineno, name)] if name in GONE_VARIABLES.split() else []
    assert not found
