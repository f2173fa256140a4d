"""Executes the notebooks of docs/tutorials/ and stores their outputs and pictures in them.

    python scripts/execute_tutorials.py                                   # all of them, minutes each
    python scripts/execute_tutorials.py docs/tutorials/first_model.ipynb

Needs the extra docs, export and tables. A cell with the tag `parameters` sets how much is computed.
"""

import argparse
import base64
import copy
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
TUTORIALS = REPOSITORY / 'docs' / 'tutorials'


def execute(path: Path, folder: Path, parameters: str = '') -> Any:
    """Executes a notebook.

    Args:
      path: the notebook.
      folder: working directory.
      parameters: code that runs after the cell with the tag `parameters`.

    Returns:
      The notebook with its outputs.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell raised an exception.
    """
    notebook = copy.deepcopy(nbformat.read(path, 4))
    for cell in notebook.cells:
        if 'parameters' in cell.metadata.get('tags', ()):
            cell.source += f'\n{parameters}'
    commands = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    os.environ |= {'PATH': commands, 'PYTHONPATH': str(REPOSITORY)}
    resources = {'metadata': {'path': str(folder)}}
    return NotebookClient(notebook, timeout=3600, kernel_name='python3', resources=resources).execute()


def keep_results(notebook: Any) -> None:
    """Removes times, progress bars and warnings from a notebook, joins what each cell printed, and shrinks pictures."""
    for cell in notebook.cells:
        cell.metadata.pop('execution', None)
        if cell.cell_type != 'code':
            continue
        printed = ''.join(output.text for output in cell.outputs if output.get('name') == 'stdout')
        printed = printed.replace(str(Path.home()), '~')
        others = [output for output in cell.outputs if output.output_type != 'stream']
        for output in others:
            if 'image/png' in output.data:
                output.data['image/png'] = smaller(output.data['image/png'])
        stream = [nbformat.v4.new_output('stream', name='stdout', text=printed)] if printed.strip() else []
        cell.outputs = [*stream, *others]


def smaller(picture: str) -> str:
    """Returns a picture, PNG in base64, with 128 colours and at most 1,000 pixels wide."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert('RGB')
    image.thumbnail((1000, 4000))
    file = io.BytesIO()
    image.quantize(128).save(file, 'png', optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(argv: list[str] | None = None) -> int:
    """Executes the notebooks that are named, or all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebooks', nargs='*', type=Path, default=sorted(TUTORIALS.glob('*.ipynb')))
    for path in parser.parse_args(argv).notebooks:
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, Path(folder))
        keep_results(notebook)
        nbformat.write(notebook, path)
        print(f'executed {path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
