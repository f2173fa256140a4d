"""Configuration of the Sphinx site: `python -m sphinx -W --keep-going docs build/site`."""

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / '_ext')]
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import fer_jax  # noqa: E402

project = 'fer_jax'
author = copyright = 'The fer_jax authors'
release = version = fer_jax.__version__

extensions = [
    'command_help',
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx_copybutton',
    'sphinx_design',
]
exclude_patterns = ['_ext', 'results/*.jsonl']
default_role = 'code'  # `name` in a docstring

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_numpy_docstring = False
toc_object_entries_show_parents = 'hide'

myst_enable_extensions = ['colon_fence', 'deflist']
myst_heading_anchors = 3
nb_execution_mode = 'off'  # the stored outputs are shown; tests/documents/test_tutorials.py executes the notebooks

copybutton_exclude = '.linenos, .gp, .go'
html_theme = 'furo'
html_title = f'fer_jax {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_theme_options = {'navigation_with_keys': True}


def without_return_types(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keeps Napoleon from reading 'The config: its fields' in a Returns section as a type and its description."""
    for number, line in enumerate(lines[:-1]):
        if line == 'Returns:':
            indent = len(lines[number + 1]) - len(lines[number + 1].lstrip())
            lines[number + 1] = f'{lines[number + 1][:indent]}:{lines[number + 1][indent:]}'


def setup(app: object) -> None:
    """Connects the function above, to run before Napoleon."""
    app.connect('autodoc-process-docstring', without_return_types, priority=400)  # type: ignore[attr-defined]
