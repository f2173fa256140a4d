"""The data doctor: what is wrong with a set of images, found by decoding each of them once."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from fer_jax.data.imaging import codec
from fer_jax.data.quality import near_duplicates
from fer_jax.data.quality.findings import Inspected, Report
from fer_jax.errors import UserError
from fer_jax.utils import progress

BLANK_STD = 1.0  # grey levels
TINY_SIDE = 24  # pixels
ODD_ASPECT = 2.0
COMMON_SHAPE = 0.99  # the share of images from which on another height and width is odd
CHUNK_IMAGES = 32


class ImageStats(NamedTuple):
    """The measurements of one image; of an unreadable image only the reason."""

    unreadable: str = ''
    notes: tuple[str, ...] = ()
    shape: tuple[int, int, int] = (0, 0, 0)
    constant: bool = False
    blank: bool = False
    mean: np.ndarray | float = 0.0  # of each channel and of its square, 0..255
    square: np.ndarray | float = 0.0
    digest: bytes = bytes(16)
    thumbnail: np.ndarray | int = 0


def examine(data: Inspected, *, workers: int) -> Report:
    """Decodes every image once, in `workers` threads, and reports; the report does not depend on `workers`.

    Of an image it keeps a thumbnail, a digest and a few numbers, about 300 bytes.
    """
    count = len(data.ids)
    unreadable: dict[int, str] = {}
    notes: dict[int, tuple[str, ...]] = {}
    shapes = np.zeros((count, 3), np.int32)
    constant, blank = np.zeros(count, bool), np.zeros(count, bool)
    digests = np.zeros((count, 2), np.uint64)
    thumbnails = np.zeros((count, near_duplicates.THUMBNAIL_SIDE, near_duplicates.THUMBNAIL_SIDE), np.uint8)
    measured = data.splits == 'train' if (data.splits == 'train').any() else np.ones(count, bool)
    sums, weight = np.zeros((2, 3)), 0
    for index, stats in enumerate(_all_stats(data, max(workers, 1))):
        if stats.unreadable:
            unreadable[index] = stats.unreadable
            continue
        if stats.notes:
            notes[index] = stats.notes
        shapes[index], constant[index], blank[index], thumbnails[index] = (
            stats.shape,
            stats.constant,
            stats.blank,
            stats.thumbnail,
        )
        digests[index] = np.frombuffer(stats.digest, np.uint64)
        if measured[index]:
            sums[0] += stats.mean
            sums[1] += stats.square
            weight += 1
    readable = shapes[:, 0] > 0
    channels = 3 if (shapes[:, 2] == 3).any() else 1
    mean, square = sums[:, :channels] / max(weight, 1) / np.array([[255], [255**2]])
    std = np.sqrt(np.maximum(square - mean**2, 0))
    duplicates = _exact(digests, readable)
    return Report(
        data=data,
        unreadable=unreadable,
        notes=notes,
        shapes=shapes,
        constant=constant,
        blank=blank,
        tiny=readable & (shapes[:, :2].min(1) < TINY_SIDE),
        odd=readable & _odd(shapes, readable),
        duplicates=duplicates,
        near_duplicates=_near(thumbnails, readable & ~blank, duplicates),
        mean=tuple(np.round(mean, 6).tolist()),
        std=tuple(np.round(std, 6).tolist()),
    )


def _all_stats(data: Inspected, workers: int) -> Iterator[ImageStats]:
    """In the order of the set; a bounded number of chunks is under way."""

    def chunk(first: int) -> list[ImageStats]:
        return [image_stats(data.read, index) for index in range(first, min(first + CHUNK_IMAGES, len(data.ids)))]

    under_way: deque[Future[list[ImageStats]]] = deque()
    with (
        ThreadPoolExecutor(workers) as pool,
        progress.bar(None, 'examining', len(data.ids)) as shown,
    ):
        for first in range(0, len(data.ids) + 4 * workers * CHUNK_IMAGES, CHUNK_IMAGES):
            if first < len(data.ids):
                under_way.append(pool.submit(chunk, first))
            if under_way and (len(under_way) > 4 * workers or first >= len(data.ids)):
                stats = under_way.popleft().result()
                yield from stats
                shown.update(len(stats))


def image_stats(read: Callable[[int], bytes], index: int) -> ImageStats:
    """Decodes the image at one position, and measures it."""
    from PIL import Image

    try:
        upright, notes = codec.open_image(read(index))
    except (OSError, UserError, ValueError) as error:
        return ImageStats(unreadable=str(error))
    image = Image.fromarray(upright)
    channels = len(image.getbands())
    levels = np.arange(256)
    histogram = np.array(image.histogram(), np.int64).reshape(channels, 256)
    pixels = image.width * image.height
    mean, square = histogram @ levels / pixels, histogram @ levels**2 / pixels
    shape = (image.height, image.width, channels)
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(np.ascontiguousarray(upright).data)
    side = (near_duplicates.THUMBNAIL_SIDE, near_duplicates.THUMBNAIL_SIDE)
    return ImageStats(
        notes=notes,
        shape=shape,
        constant=bool((histogram.max(1) == pixels).all()),
        blank=bool((square - mean**2 < BLANK_STD**2).all()),
        mean=mean,
        square=square,
        digest=digest.digest()[:16],
        thumbnail=np.asarray(image.convert('L').resize(side, Image.Resampling.BOX)),
    )


def _exact(digests: np.ndarray, readable: np.ndarray) -> list[np.ndarray]:
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: positions ascend in a group
    order = order[readable[order]]
    ends = np.flatnonzero((digests[order[1:]] != digests[order[:-1]]).any(1)) + 1
    groups = [group for group in np.split(order, ends) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))


def _near(thumbnails: np.ndarray, eligible: np.ndarray, duplicates: list[np.ndarray]) -> list[np.ndarray]:
    """Searches among one of each exact group, and gives the others back."""
    copies = {int(group[0]): group for group in duplicates}
    for group in duplicates:
        eligible[group[1:]] = False
    positions = np.flatnonzero(eligible)
    groups = []
    for group in near_duplicates.groups(thumbnails[positions]):
        members = [copies.get(index, np.array([index])) for index in positions[group].tolist()]
        groups.append(np.sort(np.concatenate(members)))
    return groups


def _odd(shapes: np.ndarray, readable: np.ndarray) -> np.ndarray:
    odd = shapes[:, :2].max(1) > ODD_ASPECT * np.maximum(shapes[:, :2].min(1), 1)
    sizes, number = np.unique(shapes[readable, :2], axis=0, return_counts=True)
    if len(sizes) and number.max() >= COMMON_SHAPE * readable.sum():
        odd |= (shapes[:, :2] != sizes[number.argmax()]).any(1)
    return odd
