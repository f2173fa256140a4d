"""Views of an image at test time."""

import jax

from fer_jax.data.augmentation.augment import Augment, augment
from fer_jax.data.augmentation.geometry import resize
from fer_jax.errors import UserError

TTA = ('none', 'flip', 'tencrop')  # views of an image at test time, besides a number of random ones
MOST_VIEWS = 64
CORNERS_SCALE = 8 / 7  # of the image from which 'tencrop' cuts
RANDOM_VIEW = Augment(flip=0.5, shift=0.06, scale=0.08, rotate=8.0)


def check_views(tta: str) -> None:
    """Checks that `tta` names views that `views` can make.

    Raises:
      UserError: it does not.
    """
    if tta not in TTA and not (tta.isascii() and tta.isdecimal() and 1 <= int(tta) <= MOST_VIEWS):
        raise UserError(
            f'--tta={tta!r} is unknown; choose {", ".join(TTA)}, or a number of random views to {MOST_VIEWS}'
        )


def input_size(size: int, tta: str) -> int:
    """Returns the side in pixels to which images can be resized in advance, so that `views` need not resize them."""
    return round(size * CORNERS_SCALE) if tta == 'tencrop' else size


def views(images: jax.Array, ids: jax.Array, size: int, tta: str) -> list[jax.Array]:
    """Computes the test-time views of each image.

    'none' is the image itself; 'flip' adds its mirror image; 'tencrop' is the four corners and the middle of the image
    resized to 8/7 of `size`, and their mirror images (Krizhevsky et al. 2012); a number is that many random views by
    `RANDOM_VIEW`, seeded by the index of the view and the number of the example.

    Args:
      images: uint8 or float32 [B, H, W, C] in 0..255.
      ids: int32 [B], numbers of the examples.
      size: side of the views in pixels.
      tta: see `check_views`.

    Returns:
      float32 [B, size, size, C] in 0..255, one array per view.
    """
    if tta in ('none', 'flip'):
        plain = [resize(images, size)]
    elif tta == 'tencrop':
        large = resize(images, input_size(size, tta))
        end = large.shape[1] - size
        places = ((0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2))
        plain = [large[:, top : top + size, left : left + size] for top, left in places]
    else:
        draw = jax.vmap(jax.random.fold_in, (None, 0))
        return [augment(images, draw(jax.random.key(view), ids), size, RANDOM_VIEW) for view in range(int(tta))]
    return plain if tta == 'none' else [*plain, *(view[:, :, ::-1] for view in plain)]
