"""Tries what users bring: odd images, names and folders through preparation, training, evaluation, report and predict.

    python scripts/robustness/odd_files.py --faces shared/data/ck48 --out outcomes.md

Each case makes a small folder of faces (three classes) with something odd in it and runs prepare, train, report,
evaluate and predict in this process. The outcome is 'works', 'refused' (one message) or 'FAILS' (a traceback).
"""

import argparse
import contextlib
import io
import os
import shutil
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

CONFIG = """
from configs import default


def get_config():
    config = default.get_config()
    config.model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': 24, 'channels': 1})
    config.data.update({'name': '', 'batch_size': 8})
    config.phases = (default.phase(epochs=1),)
    return config
"""
CLASSES = ('angry', 'happy', 'surprise')
PER_CLASS = 12


class Tree:
    """A folder of class folders with real faces."""

    def __init__(self, root: Path, faces: list[Path]):
        self.root, self._faces = root, faces
        for number, name in enumerate(CLASSES):
            (root / name).mkdir(parents=True)
            for index, path in enumerate(faces[number * PER_CLASS : (number + 1) * PER_CLASS]):
                shutil.copy(path, root / name / f'{index}.png')

    def image(self, index: int = 0) -> Image.Image:
        return Image.open(self._faces[index]).convert('RGB')

    def replace(self, name: str, save: Callable[[Image.Image, Path], Any], of: str = 'happy/0.png') -> None:
        """Replace one image by another file."""
        image = Image.open(self.root / of).convert('RGB')
        (self.root / of).unlink()
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        save(image, self.root / name)


def saved(**options: Any) -> Callable[[Image.Image, Path], None]:
    return lambda image, path: image.save(path, **options)


def sixteen_bits(image: Image.Image, path: Path) -> None:
    Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 257).save(path)


def turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(path, exif=exif)


def palette(image: Image.Image, path: Path) -> None:
    small = image.quantize(16)
    small.info['transparency'] = 0
    small.save(path, transparency=0)


def frames(image: Image.Image, path: Path) -> None:
    image.save(path, save_all=True, append_images=[image.rotate(180)], duration=100)


def manifest(
    tree: Tree, text: Callable[[str, str], str], *, head: str = 'path,label', end: str = '\n', **options: Any
) -> str:
    """Write a list of all images, `text` giving a line of path and label."""
    rows = [head, *(text(f'{name}/{index}.png', name) for name in CLASSES for index in range(PER_CLASS))]
    (tree.root / 'list.csv').write_bytes((end.join(rows) + end).encode(**options))
    return 'list.csv'


def rename_class(tree: Tree, name: str) -> None:
    (tree.root / 'happy').rename(tree.root / name)


def link_class(tree: Tree) -> None:
    (tree.root / 'happy').rename(tree.root.parent / 'elsewhere')
    (tree.root / 'happy').symlink_to(tree.root.parent / 'elsewhere')


def other_scripts(tree: Tree) -> None:
    rename_class(tree, '\u9ad8\u5174')
    folder = tree.root / '\u9ad8\u5174'
    (folder / '0.png').rename(folder / '\u0633\u0639\u064a\u062f.png')


def empty(tree: Tree) -> None:
    (tree.root / 'happy' / '0.png').write_bytes(b'')


def thousand_classes(tree: Tree) -> None:
    for name in CLASSES:
        shutil.rmtree(tree.root / name)
    for number in range(1000):
        folder = tree.root / f'person {number:04d}'
        folder.mkdir()
        for index in range(4):
            image = np.roll(np.asarray(tree.image(number % 30).resize((24, 24))), number * 4 + index, (0, 1))
            Image.fromarray(image).save(folder / f'{index}.png')


def read_only(tree: Tree) -> None:
    for path in (*tree.root.rglob('*'), tree.root):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))


CASES: dict[str, Callable[[Tree], str | None]] = {
    'upper-case suffixes (.PNG, .JPG)': lambda tree: tree.replace('happy/A.JPG', saved(format='JPEG')),
    'a space at the end of a file name': lambda tree: tree.replace('happy/x .png', saved()),
    'a space at the end of a class folder': lambda tree: rename_class(tree, 'happy '),
    'a class folder that is a link': link_class,
    'a link in a circle': lambda tree: (tree.root / 'happy' / 'again').symlink_to(tree.root),
    'a folder that may only be read': read_only,
    'a file of no bytes': empty,
    'a 16-bit PNG': lambda tree: tree.replace('happy/x.png', sixteen_bits),
    'a CMYK JPEG': lambda tree: tree.replace('happy/x.jpg', lambda image, path: image.convert('CMYK').save(path)),
    'a palette with transparency': lambda tree: tree.replace('happy/x.png', palette),
    'an animated GIF': lambda tree: tree.replace('happy/x.gif', frames),
    'an animated PNG': lambda tree: tree.replace('happy/x.png', frames),
    'a JPEG turned by EXIF': lambda tree: tree.replace('happy/x.jpg', turned),
    'RGBA': lambda tree: tree.replace('happy/x.png', lambda image, path: image.convert('RGBA').save(path)),
    'one bit a pixel': lambda tree: tree.replace('happy/x.png', lambda image, path: image.convert('1').save(path)),
    'float TIFF': lambda tree: tree.replace('happy/x.tif', lambda image, path: image.convert('F').save(path)),
    'an image of 1 x 1 px': lambda tree: tree.replace(
        'happy/x.png', lambda image, path: image.resize((1, 1)).save(path)
    ),
    'an image of 1 x 400 px': lambda tree: tree.replace(
        'happy/x.png', lambda image, path: image.resize((1, 400)).save(path)
    ),
    'a name of 255 bytes': lambda tree: tree.replace(f'happy/{"n" * 251}.png', saved()),
    'a class of 255 bytes': lambda tree: rename_class(tree, 'c' * 255),
    'a class with comma, quotes, dollar': lambda tree: rename_class(tree, 'so, "happy" $x$'),
    'a class with a newline': lambda tree: rename_class(tree, 'very\nhappy'),
    'a class that begins with a dash': lambda tree: rename_class(tree, '--happy'),
    'a class like a formula of a spreadsheet': lambda tree: rename_class(tree, '=1+1'),
    'a class of markup': lambda tree: rename_class(tree, '<b>happy<!-- '),
    'a class in Chinese, a file in Arabic': other_scripts,
    'a class whose name is not UTF-8': lambda tree: rename_class(tree, os.fsdecode(b'happy\xff')),
    'thousands of images of a thousand classes': thousand_classes,
    'a manifest with Windows paths and line ends, and a BOM': lambda tree: manifest(
        tree, lambda path, label: path.replace('/', '\\') + f',{label}', end='\r\n', encoding='utf-8-sig'
    ),
    'a manifest in UTF-16': lambda tree: manifest(tree, lambda path, label: f'{path},{label}', encoding='utf-16'),
    'a manifest with spaces after commas': lambda tree: manifest(tree, lambda path, label: f'{path}, {label} '),
    'a manifest with quoted newlines in labels': lambda tree: manifest(
        tree, lambda path, label: f'{path},"{label}\nface"'
    ),
    'a manifest that lists images twice': lambda tree: manifest(
        tree, lambda path, label: f'{path},{label}\n{path},{label}'
    ),
    'a manifest with tabs': lambda tree: manifest(tree, lambda path, label: f'{path}\t{label}', head='path\tlabel'),
    'a manifest with an empty line and a comment': lambda tree: manifest(
        tree, lambda path, label: f'{path},{label}\n', head='# from Excel\npath,label'
    ),
    'a manifest with numbers as labels': lambda tree: manifest(
        tree, lambda path, label: f'{path},{CLASSES.index(label)}'
    ),
}


def commands(tree: Tree, listed: str | None, work: Path, *, trains: bool) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield the names and the functions of the commands to try, in order."""
    from fer_jax import evaluate, main, predict, prepare_dataset, report

    source = tree.root / listed if listed else tree.root
    kind, field = ('manifest', 'manifest') if listed else ('folder', 'dir')
    run = str(work / 'run') if trains else 'release'
    work.mkdir(exist_ok=True)
    (work / 'config.py').write_text(CONFIG, encoding='utf-8')
    prepare = ['--dataset', kind, '--source', str(source), '--out', str(work / 'found')]
    yield 'prepare', lambda: prepare_dataset.main(prepare)
    if trains:
        train = ['main', f'--config={work / "config.py"}', f'--workdir={run}', f'--config.data.{field}={source}']
        yield 'train', lambda: main.main(train)
        yield 'report', lambda: report.main([run])
        yield 'evaluate', lambda: evaluate.main(['--workdir', run, '--data', str(source)])
    else:
        yield 'load', lambda: load({field: str(source)})
    given = ['--faces', 'given', '--workdir', run]
    yield 'predict', lambda: predict.main([str(tree.root), *given, '--out', str(work / 'seen'), '--format', 'csv'])


def load(source: dict[str, str]) -> int:
    """Load the data as training does, and read every image."""
    from fer_jax.cli import run_command
    from fer_jax.data import dataset

    def command() -> None:
        roles = {'train': 'train', 'validation': 'validation', 'test': 'test'}
        data = dataset.load_dataset(**source, splits=roles, image_size=24, channels=1, root=Path('nowhere'))
        for split in data.splits.values():
            split.read(np.arange(len(split.labels)))

    return run_command(command)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--faces', type=Path, required=True, help='a folder with images of faces')
    parser.add_argument('--only', default='', help='part of the names of the cases to try')
    parser.add_argument(
        '--without_training', action='store_true', help='load the data in place of training, and predict by the release'
    )
    parser.add_argument('--out', type=Path, help='write a Markdown table')
    arguments = parser.parse_args(argv)
    faces = sorted(arguments.faces.rglob('*.png'))[:: max(1, len(list(arguments.faces.rglob('*.png'))) // 40)]
    rows, failed = [], 0
    for name, make in CASES.items():
        if arguments.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            tree = Tree(Path(folder, 'faces'), faces)
            outcomes = []
            for step, command in commands(
                tree, make(tree), Path(folder, 'work'), trains=not arguments.without_training
            ):
                outcome, said = attempt(command)
                failed += outcome == 'FAILS'
                outcomes.append(f'{step} {outcome}{f" ({said})" if outcome != "works" else ""}')
            for path in Path(folder).rglob('*'):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
        rows.append((name, outcomes))
        print(f'{name}:\n  ' + '\n  '.join(outcomes), flush=True)
    if arguments.out:
        lines = [f'| {name} | {"; ".join(outcomes)} |' for name, outcomes in rows]
        arguments.out.write_text('\n'.join(['| case | outcomes |', '|---|---|', *lines]) + '\n', encoding='utf-8')
    return 1 if failed else 0


def attempt(command: Callable[[], int]) -> tuple[str, str]:
    """Run a command; return the outcome, and the last line of what it wrote on standard error."""
    error = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
            status = command()
    except BaseException:
        return 'FAILS', traceback.format_exc().strip().splitlines()[-1][:300]
    said = [line for line in error.getvalue().splitlines() if line.startswith('fer_jax')]
    return ('works' if status == 0 else 'refused'), (said[-1] if said else f'status {status}')[:300]


if __name__ == '__main__':
    sys.exit(main())
