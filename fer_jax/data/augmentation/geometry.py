"""Where the pixels of an augmented image come from: one affine map, sampled once, bilinearly.

Maps are 2 x 3 matrices on points (x, y) in units of the image's sides about its middle, so that the image is the square
[-0.5, 0.5]^2 whatever its resolution; x grows to the right, y downwards. They lead from the result back into the image,
as a resampling needs them.
"""

import jax
import jax.numpy as jnp
import numpy as np

ASPECT = (3 / 4, 4 / 3)
MOST_TRIES = 10


def resize(images: jax.Array, size: int) -> jax.Array:
    """Resizes images bilinearly, antialiased where they shrink.

    Args:
      images: [B, h, w, C], 0..255.
      size: side of the result, in pixels.

    Returns:
      float32 [B, size, size, C].
    """
    images = images.astype(jnp.float32)
    if images.shape[1:3] == (size, size):
        return images
    shape = (images.shape[0], size, size, images.shape[3])
    return jax.image.resize(images, shape, 'linear', antialias=True)


def crop_box(key: jax.Array, smallest: float) -> tuple[jax.Array, jax.Array]:
    """Draws the box of a random resized crop (Szegedy et al. 2015), as torchvision's RandomResizedCrop does.

    An area uniform in [smallest, 1] and an aspect log-uniform in `ASPECT` are drawn until the box fits into the image;
    after `MOST_TRIES` draws the whole image is taken.

    Args:
      smallest: share of the image's area; 1 takes the whole image.

    Returns:
      (middle [2], sides [2]) in x and y, in units of the image's sides; middle is relative to that of the image.
    """
    draws = jax.random.uniform(key, (MOST_TRIES, 4))
    area = smallest + draws[:, 0] * (1 - smallest)
    narrowest, widest = np.log(ASPECT)
    aspect = jnp.exp(narrowest + draws[:, 1] * (widest - narrowest))
    sides = jnp.sqrt(area[:, None] * jnp.stack([aspect, 1 / aspect], -1))
    fits = jnp.all(sides <= 1, -1)
    first = jnp.argmax(fits)
    chosen = jnp.where(fits[first], sides[first], 1.0)
    return (draws[first, 2:] - 0.5) * (1 - chosen), chosen


def backward_map(
    *,
    mirror: jax.Array,
    middle: jax.Array,
    sides: jax.Array,
    shift: jax.Array,
    factor: jax.Array,
    angle: jax.Array,
    shear: jax.Array,
) -> jax.Array:
    """Returns the map from points of the result to points of the image, for `resample`.

    The image is cropped, moved, sheared, turned and enlarged, and mirrored, in this order.

    Args:
      mirror: bool; flips left and right.
      middle, sides: [2] of the crop, see `crop_box`.
      shift: [2], to the right and downwards, in units of the crop's sides.
      factor: above 1 enlarges.
      angle: radians, counter-clockwise (as cv2.getRotationMatrix2D).
      shear: [2], tangents: how far a point moves to the right for each unit down, and down for each unit to the right.

    Returns:
      [2, 3], affine in (x, y, 1).
    """
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    sign = jnp.where(mirror, -1.0, 1.0)
    turned_x = jnp.stack([cos * sign, -sin]) / factor  # the row that gives x before turning
    turned_y = jnp.stack([sin * sign, cos]) / factor
    determinant = 1 - shear[0] * shear[1]
    x = sides[0] * (turned_x - shear[0] * turned_y) / determinant
    y = sides[1] * (turned_y - shear[1] * turned_x) / determinant
    offset = middle - sides * shift
    return jnp.stack([jnp.append(x, offset[0]), jnp.append(y, offset[1])])


def resample(image: jax.Array, back: jax.Array, size: int) -> jax.Array:
    """Samples an image bilinearly at the points of a map.

    Args:
      image: [h, w, C].
      back: [2, 3], from the result into the image, see `backward_map`.
      size: side of the result.

    Returns:
      float32 [size, size, C]; beyond the image its edge is repeated.
    """
    height, width, channels = image.shape
    grid = (jnp.arange(size) + 0.5) / size - 0.5
    x, y = grid[None, :], grid[:, None]
    columns = (back[0, 0] * x + back[0, 1] * y + back[0, 2] + 0.5) * width - 0.5
    rows = (back[1, 0] * x + back[1, 1] * y + back[1, 2] + 0.5) * height - 0.5
    columns, rows = jnp.clip(columns, 0, width - 1), jnp.clip(rows, 0, height - 1)
    left = jnp.minimum(columns.astype(jnp.int32), width - 2)
    top = jnp.minimum(rows.astype(jnp.int32), height - 2)
    across, down = (columns - left)[..., None], (rows - top)[..., None]
    pixels = image.astype(jnp.float32).reshape(height * width, channels)
    corner = top * width + left
    upper = pixels[corner] * (1 - across) + pixels[corner + 1] * across
    lower = pixels[corner + width] * (1 - across) + pixels[corner + width + 1] * across
    return upper * (1 - down) + lower * down


def rectangle(size: tuple[int, ...], start: jax.Array, end: jax.Array) -> jax.Array:
    """Returns the mask of the pixels whose middles lie between two corners.

    Args:
      size: (height, width).
      start, end: [2], corners (y, x) in pixels.

    Returns:
      bool [height, width].
    """
    rows, columns = jnp.arange(size[0]) + 0.5, jnp.arange(size[1]) + 0.5
    inside_rows = (rows >= start[0]) & (rows < end[0])
    inside_columns = (columns >= start[1]) & (columns < end[1])
    return inside_rows[:, None] & inside_columns
