"""Sets of identity folders, for pretraining on who is shown: VGGFace2 and sets in the manner of LFW."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from fer_jax.data.sets.archives import open_source
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.errors import UserError


def read_folders(source: Path, splits: tuple[str, ...], published: Mapping[str, int]) -> Reading:
    """Reads `[<split>/]<identity>/<image>`: the class and the subject are the identity.

    Args:
      splits: names of the split folders, or of files `<split>_list.txt` that list `<identity>/<image>`; images that
        the list of their split does not name are left out. () where the identities lie at the top, all in split 'all'.
      published: split -> official count.

    Raises:
      UserError: there are no such folders, or at more than one place.
    """
    opened = open_source(source)
    lists = {split: listing for split in splits if (listing := opened.one(f'{split}_list.txt'))}
    listed = {line: split for split, listing in lists.items() for line in opened.lines(listing)}
    images: dict[str, list[str]] = {split: [] for split in splits or ('all',)}
    places, unlisted = set(), 0
    for name in opened.images():
        if '/' not in name:
            continue
        *above, identity, image = name.split('/')
        split = listed.get(f'{identity}/{image}') if splits else 'all'
        if splits and above and above[-1] in splits:
            if above[-1] in lists and split != above[-1]:
                unlisted += 1
                continue
            split = above.pop()
        if split:
            images[split].append(name)
            places.add('/'.join(above) or '.')
    if len(places) != 1:
        layout = '<identity>/<image>' if not splits else f'{"|".join(splits)}/<identity>/<image>'
        raise UserError(
            f'{source} has identity folders at {" and at ".join(sorted(places)[:2])}; give one of them'
            if places
            else f'{source} has no images in folders {layout}'
        )
    missing = len(listed) - sum(len(images[split]) for split in lists)
    notes: tuple[str, ...] = ()
    if missing:
        notes += (f'{missing:,} images of {" and ".join(lists.values())} are missing',)
    if unlisted:
        notes += (f'{unlisted:,} images that no list names are left out',)
    classes = tuple(sorted({_id(name).split('/')[0] for names in images.values() for name in names}))
    number = {identity: label for label, identity in enumerate(classes)}

    def examples(split: str) -> Iterator[Example]:
        for name in images[split]:
            identity = _id(name).split('/')[0]
            yield Example(_id(name), split, opened.read(name), number[identity], identity)

    return Reading(classes, {split: len(names) for split, names in images.items()}, examples, published, notes=notes)


def _id(name: str) -> str:
    """`<identity>/<image>`"""
    return '/'.join(name.rsplit('/', 2)[-2:])
