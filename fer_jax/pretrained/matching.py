"""Finds the network among a file's arrays: under which prefix, with which head, and what is left."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from flax import nnx

from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.models.parameters import Flat, Variables, split_module
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained.transfer import _few, _grey

CLASSIFIER = re.compile(r'(fc6|fc7)\..*')  # of a VGG; weights without a head have none of it
HEAD = 'head.'
MOST_PREFIXES = 50  # tried in one file; a file of real training has two or three


class Reading(NamedTuple):
    """The entries of a file under the names of one source.

    Attributes:
      named: path -> array as the source keeps it.
      unknown: entries that no module of the source has: name -> whether it may lie beside the network.
      ignored: number and kind of the entries that are not part of a network, in words.
      lay_out: (path, array, wanted shape) -> its view in Flax's layout; the array itself where that is impossible.
      preprocessing: how the source prepares images.
      prefix: of the names in the file, '' for none.
      outside: names of the file that do not have the prefix.
    """

    named: Flat
    unknown: dict[str, bool]
    ignored: str
    lay_out: Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray]
    preprocessing: Preprocessing
    prefix: str = ''
    outside: tuple[str, ...] = ()


@functools.cache  # a conversion asks for the same network once a name table
def expected(model: str, classes: int) -> Variables:
    """Returns the shapes of the variables of a network with one head of `classes`; they must not be modified."""
    made = nnx.eval_shape(lambda: registry.create(model, classes=classes, rngs=nnx.Rngs(0)))
    return split_module(made)[1]


class Attempt(NamedTuple):
    """The result of comparing a reading with a network.

    Attributes:
      named: path -> view in Flax's layout, of the entries that are used.
      classes: outputs of the head that is used; 0 for none.
      head: whether and why the head is used, in words.
      beside: entries of other modules, which are left out.
      misfits: how many paths are missing, left over or of another shape.
      difference: the same in words; empty if the whole network but its head fits.
    """

    reading: Reading
    named: Flat
    classes: int
    head: str
    beside: list[str]
    misfits: int
    difference: str


def attempt(reading: Reading, model: str) -> Attempt:
    """Compares a reading with the network `model`."""
    bias = reading.named.get('head.primary.bias')
    classes = bias.size if bias is not None and bias.ndim == 1 else 0
    params, stats = expected(model, classes or 1000)
    wanted = {path: leaf.shape for path, leaf in (params | stats).items()}
    named = {
        path: reading.lay_out(path, leaf, wanted[path]) if path in wanted else leaf
        for path, leaf in reading.named.items()
    }
    fitting = {path for path, leaf in named.items() if leaf.shape in (wanted.get(path), _grey(wanted.get(path, ())))}
    head = {path for path in wanted if path.startswith(HEAD)}
    classifier = {path for path in wanted if CLASSIFIER.fullmatch(path)}
    top = head | classifier
    takes_classifier = classifier <= fitting
    in_head = {path for path in named if path.startswith(HEAD)}
    takes_head = takes_classifier and head <= fitting and in_head <= head and classes > 0
    body = set(wanted) - top
    taken = body | (classifier if takes_classifier else set()) | (head if takes_head else set())

    missing = [path for path in wanted if path in body and path not in named]
    extra = [path for path in named if path not in wanted and not path.startswith(HEAD)]
    unknown = [name for name, may_lie_beside in reading.unknown.items() if not may_lie_beside]
    shapes = [path for path in wanted if path in body and path in named and path not in fitting]
    difference = ''
    if missing or extra or unknown:
        unused = [*reading.unknown] if missing else unknown
        difference = f'{_few("missing", missing)}; {_few("not used", unused + extra)}'
    elif shapes:
        path = shapes[0]
        difference = f'{path} has the shape {list(named[path].shape)}, expected {list(wanted[path])}'
    return Attempt(
        reading,
        {path: leaf for path, leaf in named.items() if path in taken},
        classes if takes_head else 0,
        _describe_head(named, wanted, top, takes_head, takes_classifier),
        [name for name, may_lie_beside in reading.unknown.items() if may_lie_beside],
        len(missing) + len(extra) + len(unknown) + len(shapes),
        difference,
    )


def _describe_head(
    named: Flat, wanted: Mapping[str, tuple[int, ...]], top: set[str], head: bool, classifier: bool
) -> str:
    if head:
        return f'taken, {len(named["head.primary.bias"])} classes'
    held = [path for path in named if path.startswith(HEAD) or (path in top and not classifier)]
    shapes = ', '.join(f'{path} {list(named[path].shape)}' for path in held[:2])
    text = f'left out, since it does not fit ({shapes})' if held else 'none in the file'
    if any(CLASSIFIER.fullmatch(path) for path in wanted):
        text += f'; fc6 and fc7 {"taken" if classifier else "not taken"}'
    return text


def find_prefixes(names: Iterable[str], separator: str, least: int) -> list[str]:
    """Lists the leading parts of names, each with its separator, that at least `least` names have; '' is the first."""
    counts: Counter[str] = Counter()
    for name in names:
        end = name.find(separator)
        while end >= 0:
            counts[name[: end + 1]] += 1
            end = name.find(separator, end + 1)
    return ['', *[prefix for prefix, count in counts.most_common(MOST_PREFIXES) if count >= least]]


def choose(attempts: list[Attempt], model: str, key: str) -> Attempt:
    """Returns the attempt that fits, or the nearest.

    Args:
      key: prefix of the network in the file, as the user writes it; '' for any.

    Raises:
      UserError: several different networks fit, or none is under `key`.
    """
    if key:
        starts = (f'{key}.', f'{key}/')
        under = [
            each
            for each in attempts
            if each.reading.prefix.startswith(starts) or key == '.' and not each.reading.prefix
        ]
        if not under:
            known = ', '.join(repr(each.reading.prefix[:-1]) for each in attempts if each.reading.prefix)
            raise UserError(
                f'--key {key}: the file has no network under that name' + (f', but under {known}' if known else '')
            )
        attempts = under
    fitting: dict[str, Attempt] = {}
    for each in attempts:
        best = fitting.get(each.reading.prefix)
        if not each.difference and (best is None or len(best.named) < len(each.named)):
            fitting[each.reading.prefix] = each
    if not fitting:
        return min(attempts, key=lambda each: each.misfits)
    first, *others = sorted(fitting.values(), key=lambda each: -len(each.named))
    different = [each for each in others if not _is_part(each.named, first.named)]
    if different:
        names = [each.reading.prefix.rstrip('./') or '.' for each in (first, *different)]
        raise UserError(
            f'the file holds {len(names)} networks that fit {model}: {", ".join(names)}; '
            f'choose one, such as --key {names[-1]}'
        )
    return first


def _is_part(part: Flat, whole: Flat) -> bool:
    return part.keys() <= whole.keys() and all(np.array_equal(leaf, whole[path]) for path, leaf in part.items())


def rename(
    entries: Mapping[str, np.ndarray],
    ignored: Collection[str],
    path_of: Callable[[str], str | None],
    separator: str,
    has_rule: Callable[[str], bool],
) -> tuple[Flat, dict[str, bool]]:
    """Renames entries to the paths of a network.

    Args:
      path_of: returns an entry's path, or None.
      has_rule: whether an entry without a path belongs to this form of network all the same.

    Returns:
      ({path: array}, {name: whether the entry may lie beside the network}). The second holds the entries left over;
      one may lie beside the network only if its top-level module has no entry in the network's body. Heads of several
      layers are left over.
    """
    named: Flat = {}
    sources: dict[str, str] = {}
    unknown: dict[str, bool] = {}
    for name in entries:
        if name in ignored:
            continue
        path = path_of(name)
        if path is None or path in named:
            unknown[name] = bool(path and path.startswith(HEAD)) or not has_rule(name)
        else:
            named[path], sources[path] = entries[name], name
    if any(path_of(name) for name in unknown if unknown[name]):
        for path in [path for path in named if path.startswith(HEAD)]:
            del named[path]
            unknown[sources.pop(path)] = True
    body = (name for path, name in sources.items() if not path.startswith(HEAD) and not CLASSIFIER.fullmatch(path))
    used = {name.partition(separator)[0] for name in body}
    return named, {name: beside and name.partition(separator)[0] not in used for name, beside in unknown.items()}


def below(entries: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Returns the entries whose names start with `prefix`, with the prefix removed."""
    return {name.removeprefix(prefix): leaf for name, leaf in entries.items() if name.startswith(prefix)}


def body_size(model: str) -> int:
    """Returns the number of arrays that a network has without its head."""
    return sum(
        not path.startswith(HEAD) and not CLASSIFIER.fullmatch(path) for tree in expected(model, 1000) for path in tree
    )


def readings(
    entries: Mapping[str, np.ndarray],
    separator: str,
    least: int,
    read: Callable[[dict[str, np.ndarray]], Reading],
) -> Iterator[Reading]:
    """Yields one reading of the entries under each prefix that at least `least` names have."""
    for prefix in find_prefixes(entries, separator, least):
        outside = tuple(name for name in entries if not name.startswith(prefix))
        yield read(below(entries, prefix))._replace(prefix=prefix, outside=outside)
