"""Prepares a data set for training, and examines what was read.

    python -m fer_jax.prepare_dataset --dataset fer2013 --source fer2013.csv
    python -m fer_jax.prepare_dataset --dataset fer2013 --check --drop blank,leaks
    python -m fer_jax.prepare_dataset --dataset folder --source my_faces --drop duplicates --keep kept.csv

docs/reference/datasets.md says what each set is read from. A folder or a manifest needs no preparation: it is examined,
and with --keep what is left of it is listed in a new manifest. Photographs, in class folders or `unlabelled`, are cut
down to their faces first:

    python -m fer_jax.prepare_dataset --dataset folder --source photographs --crop_faces faces
"""

import argparse
import errno
import json
import os
import sys
from pathlib import Path

import numpy as np

from fer_jax.cli import run_and_exit, run_command
from fer_jax.data.imaging import faces
from fer_jax.data.imaging.crop_folder import LOG, WITHOUT, crop_folder
from fer_jax.data.imaging.image_files import describe_left_out, list_image_files
from fer_jax.data.quality import contact_sheet, examination
from fer_jax.data.quality.findings import KINDS, Inspected, Report
from fer_jax.data.sources import folder, manifest, prepared
from fer_jax.data.tables import class_names
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.utils import cache
from fer_jax.utils.paths import path_argument

UNPREPARED = ('folder', 'unlabelled', 'manifest')


def main(argv: list[str] | None = None) -> int:
    """Prepares and examines a data set as the arguments say.

    Args:
      argv: arguments; None takes those of the process.

    Returns:
      The exit status: 0, 2 where the input is wrong, or 130 where it was interrupted.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax prepare', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ', '.join((*prepared.SETS, *UNPREPARED))
    parser.add_argument('--dataset', required=True, help=f'one of {known}')
    parser.add_argument('--source', type=path_argument, help='what was downloaded: a file or a folder')
    parser.add_argument('--root', type=path_argument, help='where to write; datasets/ in the cache folder')
    parser.add_argument('--check', action='store_true', help='only examine what is prepared already')
    parser.add_argument('--drop', help=f'kinds to leave out from now on, of {",".join(KINDS)},uncertain; "" for none')
    parser.add_argument('--keep', type=path_argument, help='folder, manifest: list what is left in this new manifest')
    parser.add_argument('--subject', default='', help='folder: a regular expression that finds the subject in a path')
    parser.add_argument('--align', type=int, default=0, help='px: align faces by landmarks of the set or --crop_faces')
    parser.add_argument(
        '--crop_faces', type=path_argument, help='folder: find the faces of photographs and put them here'
    )
    parser.add_argument('--margin', type=float, default=0.2, help='around aligned or cropped faces, as a share')
    parser.add_argument('--size', type=int, default=224, help='px, of cropped faces')
    parser.add_argument('--pick', default='largest', help='crop which faces of a photograph: largest, central or all')
    parser.add_argument('--yunet', type=path_argument, help='ONNX file: detect by YuNet, and align what it finds')
    parser.add_argument('--out', type=path_argument, help='folder of the report and its pictures; else beside the data')
    arguments = parser.parse_args(argv)

    def command() -> int:
        try:
            run(arguments)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise
            place = error.filename or arguments.out or arguments.root
            raise UserError(
                f'{place} cannot be written ({error.strerror}); make room or name another place, then run this again'
            ) from None
        except KeyboardInterrupt:
            print('fer_jax: stopped; the same command goes on', file=sys.stderr)
            return 130
        return 0

    return run_command(command)


def run(arguments: argparse.Namespace) -> None:
    name = arguments.dataset
    kinds = None if arguments.drop is None else tuple(kind for kind in arguments.drop.split(',') if kind)
    if arguments.crop_faces:
        crop(arguments)
    if name in UNPREPARED:
        table, report_folder = unprepared(name, arguments)
    else:
        arguments.root = arguments.root or cache.root() / 'datasets'
        home = prepared.folder(name, arguments.root)
        if arguments.keep:
            raise UserError(f'--keep is for folders and manifests; --drop alone is remembered for {name}')
        if not arguments.check:
            prepare(name, arguments)
        table = prepared.open_table(name, arguments.root, whole=True)
        report_folder = home / 'examination'
    report = examine(table, arguments.out or report_folder)
    left_out = leave_out(table, report, kinds or ())
    if name in UNPREPARED:
        if arguments.keep:
            base = arguments.source.parent if name == 'manifest' else arguments.source
            manifest.write_manifest(arguments.keep, table, ~left_out, base)
            print(f'{(~left_out).sum():,} of {len(table):,} images are listed in {arguments.keep}')
            print(f'train on them with --config.data.manifest={arguments.keep}')
        elif kinds:
            raise UserError('--drop leaves nothing out of a folder or a manifest without --keep FILE.csv')
        return
    if kinds is not None:
        prepared.drop(name, arguments.root, kinds, table.ids[left_out].tolist())
        print(f'{left_out.sum():,} of {len(table):,} images are left out from now on')
    print(f'{name} is in {home}; train on it with --config.data.name={name}')


def unprepared(name: str, arguments: argparse.Namespace) -> tuple[Table, Path]:
    if arguments.source is None:
        raise UserError(f'--source is missing; give the {name}')
    if name == 'folder':
        table = folder.scan(arguments.source, subject=arguments.subject)
    elif name == 'unlabelled':
        table = folder.unlabelled(arguments.source)
    else:
        table = manifest.read_manifest(arguments.source)
    return table, Path('examination') / table.name


def prepare(name: str, arguments: argparse.Namespace) -> None:
    if prepared.is_prepared(name, arguments.root):
        print(f'{prepared.folder(name, arguments.root)} is prepared already; remove it to prepare it anew')
        return
    if arguments.source is not None:
        print(f'reading {arguments.source}')
    prepared.prepare(name, arguments.source, arguments.root, align=arguments.align, margin=arguments.margin)


def crop(arguments: argparse.Namespace) -> None:
    """Crops the faces of the photographs in --source, and sets `arguments.source` to the folder of the crops.

    Args:
      arguments: parsed flags of `fer-jax prepare`.

    Raises:
      UserError: --dataset is not a folder of photographs, or --source is missing.
    """
    if arguments.dataset not in ('folder', 'unlabelled') or arguments.source is None:
        raise UserError('--crop_faces is for photographs; give --dataset folder, or unlabelled, and --source DIR')
    summary = crop_folder(
        arguments.source,
        arguments.crop_faces,
        detect=faces.detector(arguments.yunet),
        margin=arguments.margin,
        size=arguments.align or arguments.size,
        pick=arguments.pick,
        align=bool(arguments.align) or arguments.yunet is not None,
    )
    print(f'{summary} are in {arguments.crop_faces}')
    for line in describe_left_out(list_image_files(arguments.source).left_out):
        print(line)
    if summary.without_face:
        print(f'photographs without a face are listed in {arguments.crop_faces / WITHOUT}')
    if summary.unreadable:
        print(f'what could not be read is in {arguments.crop_faces / LOG}, with the reason')
    arguments.source = arguments.crop_faces


def examine(table: Table, out: Path) -> Report:
    """Examines a data set, prints the findings, and writes findings.json and contact sheets.

    Args:
      table: the images and labels.
      out: folder to write to.
    """
    data = Inspected(
        ids=table.ids,
        splits=table.splits,
        labels=table.labels,
        subjects=table.subjects,
        classes=table.classes,
        read=lambda index: table.fetch(np.array([index]))[0],
        published=dict(table.published),
    )
    report = examination.examine(data, workers=os.cpu_count() or 1)
    print(report.table())
    for name, mask in table.subsets.items():
        for split in dict.fromkeys(table.splits):
            here = mask[table.splits == split]
            if 0 < here.sum() < len(here):
                print(f'{split}, {name}: {here.sum():,} of {len(here):,}')
    for note in (*table.notes, *describe_left_out(table.left_out), *class_names.alike(table.classes)):
        print(note)
    out.mkdir(parents=True, exist_ok=True)
    findings = report.to_json() | {'left_out': {reason: list(names) for reason, names in table.left_out.items()}}
    (out / 'findings.json').write_text(json.dumps(findings, indent=1) + '\n', encoding='utf-8')
    sheets = contact_sheet.write_sheets(report, data, out)
    print(f'findings.json and {", ".join(sheet.name for sheet in sheets)} are in {out}')
    return report


def leave_out(table: Table, report: Report, kinds: tuple[str, ...]) -> np.ndarray:
    """Selects the images that the given kinds of findings leave out.

    Args:
      table: the images and labels.
      report: findings of `examine`.
      kinds: kinds of findings; 'uncertain' stands for images outside the table's subset 'certain'.

    Returns:
      bool [N], True for images to leave out.

    Raises:
      UserError: 'uncertain' is given, but the table has no subset 'certain'.
    """
    dropped = report.dropped([kind for kind in kinds if kind != 'uncertain'])
    if 'uncertain' in kinds:
        if 'certain' not in table.subsets:
            raise UserError(f'--drop uncertain: {table.name} does not say which of its images are certain')
        dropped = dropped | ~table.subsets['certain']
    return dropped


if __name__ == '__main__':
    run_and_exit(main)
