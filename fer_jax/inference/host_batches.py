"""Images of any size and number as batches of a few shapes, so that few programs are compiled."""

from collections.abc import Iterator, Sequence

import numpy as np

BATCH_SIZES = (1, 4, 16, 64, 256)  # examples


def resize_on_host(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image as `data.augmentation.geometry.resize` does, without compiling a program for its shape.

    Args:
      image: uint8 [H, W, C].
      size: side of the result in pixels.

    Returns:
      float32 [size, size, C] in 0..255, within 0.001 of `geometry.resize`: bilinear, with antialiasing for smaller
      sizes.
    """
    from PIL import Image

    planes = [
        Image.fromarray(np.ascontiguousarray(image[..., channel], np.float32)).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        for channel in range(image.shape[-1])
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def stack_images(images: np.ndarray | list[np.ndarray], size: int) -> np.ndarray:
    """Stacks images, each uint8 [H, W, C] of any size, into one batch.

    Args:
      images: the images.
      size: side of the result in pixels.

    Returns:
      [B, size, size, C]: uint8 where no image needs resizing, else float32.
    """
    if all(image.shape[:2] == (size, size) for image in images):
        return np.stack(list(images))
    return np.stack([resize_on_host(image, size) for image in images])


def split_into_parts(count: int) -> Iterator[tuple[int, int, int]]:
    """Splits a batch into parts that are padded to sizes in `BATCH_SIZES`; less than half of each part is padding.

    Args:
      count: number of examples in the batch.

    Yields:
      (first, last, size): examples first to last - 1 are padded to `size`.
    """
    first = 0
    while first < count:
        rest = count - first
        padded = min((size for size in BATCH_SIZES if rest <= size < 2 * rest), default=0)
        size = padded or max(size for size in BATCH_SIZES if size <= rest)
        last = min(first + size, count)
        yield first, last, size
        first = last


def pad_batch(batch: np.ndarray, size: int) -> np.ndarray:
    """Pads a batch [B, ...] with zeros to [size, ...]."""
    return np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * (batch.ndim - 1))


def check_images(images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Checks the shape and dtype of images, and gives each a channel axis.

    Args:
      images: uint8 [B, H, W, 1 or 3]; [H, W, 1 or 3], [B, H, W]; or a list of [H, W, 1 or 3] or [H, W].

    Returns:
      uint8 images [H, W, 1 or 3]: a list where a list was given, else an array [B, H, W, 1 or 3].

    Raises:
      ValueError: an image is not uint8 or has another shape, or the images of a list differ in their channels.
    """
    if isinstance(images, list | tuple):
        batch = [np.asarray(image) for image in images]
        batch = [image[..., None] if image.ndim == 2 else image for image in batch]
        wrong = [image for image in batch if not _is_image(image)]
        if wrong:
            raise ValueError(f'expected uint8 images [H, W, 1 or 3], got {wrong[0].dtype} {list(wrong[0].shape)}')
        if len({image.shape[-1] for image in batch}) > 1:
            raise ValueError('expected images of one number of channels, got grey and RGB')
        return batch
    array = np.asarray(images)
    if array.ndim == 3:
        array = array[None] if array.shape[-1] in (1, 3) else array[..., None]
    if array.ndim != 4 or array.dtype != np.uint8 or (len(array) and not _is_image(array[0])):
        raise ValueError(f'expected uint8 images [B, H, W, 1 or 3], got {array.dtype} {list(array.shape)}')
    return array


def _is_image(image: np.ndarray) -> bool:
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] in (1, 3) and image.size > 0
