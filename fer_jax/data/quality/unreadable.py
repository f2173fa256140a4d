"""Images of a set that cannot be decoded: all of them at once, and how to leave them out."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax.data.imaging.codec import decode_pixels
from fer_jax.data.imaging.image_files import describe_left_out, printable
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.utils import cache, progress
from fer_jax.utils.threads import threads

MOST_NAMED = 5  # images of each kind that a message names


class Remedy(NamedTuple):
    """The arguments with which `fer_jax.prepare_dataset` is called for a set.

    Attributes:
      dataset: a prepared set, 'folder', 'unlabelled' or 'manifest'.
      source: path of the last three.
      subject: see `folder.scan`.
      root: folder of the prepared sets.
    """

    dataset: str
    source: str
    subject: str
    root: Path

    def command(self, kinds: str) -> str:
        """Returns the command that leaves kinds of images out, and what to train on then."""
        command = ['python', '-m', 'fer_jax.prepare_dataset', '--dataset', self.dataset]
        if not self.source:
            elsewhere = [] if self.root == cache.root() / 'datasets' else ['--root', str(self.root)]
            return shlex.join([*command, *elsewhere, '--check', '--drop', kinds])
        kept = f'{Path(self.source).resolve().name.removesuffix(".csv").removesuffix(".jsonl")}_kept.csv'
        subject = ['--subject', self.subject] if self.subject else []
        command += ['--source', self.source, *subject, '--drop', kinds, '--keep', kept]
        fields = [f'--config.data.manifest={kept}', *(['--config.data.subject='] if subject else [])]
        return f'{shlex.join(command)}, then train on {shlex.join(fields)}'


def split_unreadable(table: Table) -> tuple[Table, dict[str, str]]:
    """Decodes every image of a table once.

    Returns:
      The examples that can be decoded, and id -> reason of the others.

    Raises:
      UserError: none can be decoded.
    """
    unreadable, _ = _check(table)
    check_some_readable(table, unreadable)
    if not unreadable:
        return table, {}
    kept = np.array([index for index, name in enumerate(table.ids) if str(name) not in unreadable], np.int64)
    return table.take(kept), unreadable


def check_some_readable(table: Table, unreadable: Mapping[str, str]) -> None:
    """Checks that some image of a table is not in `unreadable`, id -> reason.

    Raises:
      UserError: all are.
    """
    if unreadable and len(unreadable) == len(table):
        name, reason = next(iter(unreadable.items()))
        raise UserError(f'none of the {len(table):,} images of {table.name} can be read: {printable(name)} ({reason})')


class ReadImages(NamedTuple):
    """The images of a table that can be decoded.

    Attributes:
      positions: int [N], in the table.
      images: uint8 [H, W, C], one by one.
      unreadable: id -> reason of the others.
    """

    positions: np.ndarray
    images: list[np.ndarray]
    unreadable: dict[str, str]


def read_images(table: Table, index: np.ndarray, size: int | None, channels: int) -> ReadImages:
    """Decodes some images of a table, each once, and passes over those that cannot be decoded.

    Args:
      table: the table.
      index: int [B], positions in it.
      size, channels: see `codec.decode`.
    """

    def read(position: int) -> np.ndarray | str:
        try:
            return decode_pixels(table.fetch(np.array([position]))[0], size, channels)
        except (UserError, ValueError) as error:
            return str(error)

    with threads() as pool:
        results = list(pool.map(read, index.tolist()))
    readable = [not isinstance(result, str) for result in results]
    return ReadImages(
        index[readable],
        [result for result in results if not isinstance(result, str)],
        {
            str(table.ids[position]): result
            for position, result in zip(index, results, strict=True)
            if isinstance(result, str)
        },
    )


def describe_unreadable(table: Table, remedy: Remedy) -> str:
    """Decodes every image of a table once; returns what is wrong with them, '' where all can be decoded."""
    unreadable, blank = _check(table)
    if not unreadable:
        return ''
    lines = [f'{len(unreadable):,} of the {len(table):,} images of {table.name} cannot be read: {_some(unreadable)}']
    if blank:
        lines.append(f'{len(blank):,} are blank: {_some(dict.fromkeys(blank, ""))}')
    lines += describe_left_out(table.left_out)
    lines.append(f'replace them, or leave them out: {remedy.command("unreadable,blank" if blank else "unreadable")}')
    return '\n'.join(lines)


def _some(reasons: dict[str, str]) -> str:
    names = [f'{printable(name)} ({reason})' if reason else printable(name) for name, reason in reasons.items()]
    return ', '.join(names[:MOST_NAMED]) + (' ...' if len(names) > MOST_NAMED else '')


def _check(table: Table) -> tuple[dict[str, str], list[str]]:
    """Returns id -> reason of the images that cannot be decoded, and the ids of those that are blank."""
    from fer_jax.data.quality.examination import image_stats  # it imports scipy

    unreadable: dict[str, str] = {}
    blank = []
    with threads() as pool:
        checked = pool.map(
            lambda index: image_stats(lambda position: table.fetch(np.array([position]))[0], index), range(len(table))
        )
        for name, stats in zip(table.ids, progress.bar(checked, 'checking images', len(table)), strict=True):
            if stats.unreadable:
                unreadable[str(name)] = stats.unreadable
            elif stats.blank:
                blank.append(str(name))
    return unreadable, blank
