"""Sets of identity folders, for pretraining on who is shown: VGGFace2 and sets in the manner of LFW."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from fer_jax.data.builders.face_set import Example, Reading
from fer_jax.data.builders.sources import open_source
from fer_jax.errors import UserError


def read_folders(source: Path, splits: tuple[str, ...], published: Mapping[str, int]) -> Reading:
    """`[<split>/]<identity>/<image>`: the class and the subject are the identity.

    Where there is a list `<split>_list.txt` of `<identity>/<image>`, images that it does not name are left out.

    Args:
      splits: names of the split folders; () where the identities lie at the top, all in split 'all'.
      published: split -> official count.

    Raises:
      UserError: there are no such folders, or at more than one place.
    """
    opened = open_source(source)
    found: dict[str, list[str]] = {split: [] for split in splits or ('all',)}
    depth, places = 3 if splits else 2, set()
    for name in opened.images():
        parts = name.rsplit('/', depth)
        if len(parts) < depth:
            continue
        split = parts[-3] if splits else 'all'
        if split in found:
            found[split].append(name)
            places.add(parts[0] if len(parts) > depth else '.')
    if len(places) != 1:
        layout = '<identity>/<image>' if not splits else f'{"|".join(splits)}/<identity>/<image>'
        raise UserError(
            f'{source} has identity folders at {" and at ".join(sorted(places)[:2])}; give one of them'
            if places
            else f'{source} has no images in folders {layout}'
        )
    notes: tuple[str, ...] = ()
    for split, names in found.items():
        listing = opened.one(f'{split}_list.txt')
        if listing:
            listed = set(opened.lines(listing))
            kept = [name for name in names if _id(name) in listed]
            if len(kept) < len(listed):
                notes += (f'{len(listed) - len(kept):,} images that {listing} lists are missing',)
            if len(kept) < len(names):
                notes += (f'{len(names) - len(kept):,} images that {listing} does not list are left out',)
            found[split] = kept
    classes = tuple(sorted({_id(name).split('/')[0] for names in found.values() for name in names}))
    number = {identity: label for label, identity in enumerate(classes)}

    def examples(split: str) -> Iterator[Example]:
        for name in found[split]:
            identity = _id(name).split('/')[0]
            yield Example(_id(name), split, opened.read(name), number[identity], identity)

    return Reading(classes, {split: len(names) for split, names in found.items()}, examples, published, notes=notes)


def _id(name: str) -> str:
    """`<identity>/<image>`"""
    return '/'.join(name.rsplit('/', 2)[-2:])
