"""Sets of identity folders, for pretraining on who is shown: VGGFace2 and sets in the manner of LFW."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from fer_jax.data.builders.face_set import Example, Reading
from fer_jax.data.builders.sources import open_source
from fer_jax.errors import UserError


def read_folders(source: Path, splits: tuple[str, ...], published: Mapping[str, int]) -> Reading:
    """`[<split>/]<identity>/<image>`: the class and the subject are the identity.

    Args:
      splits: names of the split folders, or of files `<split>_list.txt` that list `<identity>/<image>`; () where the
        identities lie at the top, all in split 'all'.
      published: split -> official count.

    Raises:
      UserError: there are no such folders.
    """
    opened = open_source(source)
    listed: dict[str, str] = {}
    for own in splits:
        listing = opened.one(f'{own}_list.txt')
        listed |= dict.fromkeys(opened.text(listing).split() if listing else (), own)
    found: list[tuple[str, str, str]] = []
    for name in opened.images():
        parts = PurePosixPath(name).parts
        split = parts[-3] if len(parts) >= 3 and parts[-3] in splits else listed.get('/'.join(parts[-2:]), 'all')
        if len(parts) >= 2 and (split == 'all') == (not splits):
            found.append((name, split, parts[-2]))
    if not found:
        layout = '<identity>/<image>' if not splits else f'{"|".join(splits)}/<identity>/<image>'
        raise UserError(f'{source} has no images in folders {layout}')
    classes = tuple(sorted({identity for _, _, identity in found}))
    number = {identity: label for label, identity in enumerate(classes)}

    def examples(split: str) -> Iterator[Example]:
        for name, own, identity in found:
            if own == split:
                image = f'{identity}/{PurePosixPath(name).name}'
                yield Example(image, split, opened.read(name), number[identity], identity)

    counts = {split: sum(own == split for _, own, _ in found) for split in splits or ('all',)}
    return Reading(classes, counts, examples, published=published)
