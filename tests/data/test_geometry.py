"""Resizing against Pillow, the affine map against OpenCV and SciPy, crops against torchvision's rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fer_jax.data.augmentation.geometry import ASPECT, backward_map, crop_box, rectangle, resample, resize
from tests.data.images import ck48, photographs
from tests.lazy import lazy

ndimage = lazy('scipy.ndimage')

NOTHING = {
    'mirror': False,
    'middle': np.zeros(2),
    'sides': np.ones(2),
    'shift': np.zeros(2),
    'factor': 1.0,
    'angle': 0.0,
    'shear': np.zeros(2),
}


@pytest.fixture(scope='module')
def faces(shared_data):
    return ck48(shared_data, 7)


@functools.partial(jax.jit, static_argnums=2)
def moved(image, fields, size=48):
    return resample(image, backward_map(**{name: jnp.asarray(value) for name, value in fields.items()}), size)


@pytest.mark.parametrize('target', [20, 33, 47, 48, 63, 64, 96, 224])
@pytest.mark.parametrize('channels', [1, 3])
def test_resize_is_pillows_antialiased_bilinear(shared_data, target, channels):
    images = ck48(shared_data, 3) if channels == 1 else photographs(shared_data, 61)[:3]
    ours = np.asarray(resize(images, target))
    assert ours.shape == (3, target, target, channels)
    for image, result in zip(images, ours, strict=True):
        expected = Image.fromarray(image.squeeze()).resize((target, target), Image.Resampling.BILINEAR)
        assert np.abs(np.rint(result.squeeze()) - np.asarray(expected, float)).max() <= 1


def test_nothing_is_a_resize(faces):
    for face in faces:
        np.testing.assert_allclose(moved(face, NOTHING), face, atol=1e-3)
        np.testing.assert_allclose(moved(face, NOTHING, 64), resize(face[None], 64)[0], atol=0.02)


def test_a_mirror_image_is_numpys(faces):
    for face in faces:
        np.testing.assert_allclose(moved(face, NOTHING | {'mirror': True}), face[:, ::-1], atol=1e-3)


def opencv_matrix(fields, size):
    """The forward map on OpenCV's points, 3 x 3, each part written as in OpenCV's documentation."""
    cv2 = pytest.importorskip('cv2')
    middle = (size - 1) / 2
    to_middle, back = np.eye(3), np.eye(3)
    to_middle[:2, 2], back[:2, 2] = -middle, middle
    crop, shift, shear, mirror = np.eye(3), np.eye(3), np.eye(3), np.eye(3)
    crop[:2, 2] = -np.asarray(fields['middle']) * size
    crop = np.diag([*(1 / np.asarray(fields['sides'])), 1]) @ crop
    shift[:2, 2] = np.asarray(fields['shift']) * size
    shear[0, 1], shear[1, 0] = fields['shear']
    turn = cv2.getRotationMatrix2D((0.0, 0.0), float(np.rad2deg(fields['angle'])), float(fields['factor']))
    mirror[0, 0] = -1 if fields['mirror'] else 1
    return back @ mirror @ np.vstack([turn, [0, 0, 1]]) @ shear @ shift @ crop @ to_middle


CASES = [
    {'mirror': True},
    {'shift': np.array([0.2, -0.1])},
    {'factor': 1.4},
    {'factor': 0.7},
    {'angle': 0.5},
    {'shear': np.array([0.3, 0.0])},
    {'shear': np.array([-0.1, 0.25])},
    {'middle': np.array([0.1, -0.15]), 'sides': np.array([0.6, 0.7])},
    {
        'mirror': True,
        'middle': np.array([0.1, 0.05]),
        'sides': np.array([0.8, 0.7]),
        'shift': np.array([0.1, -0.05]),
        'factor': 1.2,
        'angle': -0.4,
        'shear': np.array([0.2, 0.1]),
    },
]


@pytest.mark.parametrize('changed', CASES, ids=lambda changed: '+'.join(changed))
def test_the_affine_map_is_opencvs(faces, changed):
    """Directions included: angles turn counter-clockwise, shifts go right and down."""
    cv2 = pytest.importorskip('cv2')
    fields = NOTHING | changed
    matrix = opencv_matrix(fields, 48)
    for face in faces:
        ours = np.asarray(moved(face, fields))[..., 0]
        exact = ndimage.affine_transform(face[..., 0].T.astype(float), np.linalg.inv(matrix), order=1, mode='nearest').T
        assert np.abs(ours - exact).max() < 0.05
        settings = {'flags': cv2.INTER_LINEAR, 'borderMode': cv2.BORDER_REPLICATE}
        warped = cv2.warpAffine(face[..., 0].astype(np.float32), matrix[:2], (48, 48), **settings)
        assert np.abs(ours - warped).max() < 4  # it rounds positions to 1/32 of a pixel
        assert np.abs(ours - warped).mean() < 0.3


def test_a_point_turns_counter_clockwise():
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 8] = 255  # on the right
    turned = np.asarray(moved(image, NOTHING | {'angle': np.pi / 2}, 9))
    assert turned[0, 4] == pytest.approx(255, abs=0.1)  # now on top


def test_colours_move_together(shared_data):
    image = photographs(shared_data, 40)[0]
    fields = NOTHING | {'angle': 0.3, 'shift': np.array([0.1, 0.0])}
    together = moved(image, fields, 40)
    for channel in range(3):
        alone = moved(image[..., channel : channel + 1], fields, 40)
        np.testing.assert_allclose(together[..., channel : channel + 1], alone, atol=1e-3)


def torchvisions_sides(rng, smallest):
    """RandomResizedCrop.get_params in words: ten tries of an area and a log-uniform aspect, else the whole square."""
    for _ in range(10):
        area, aspect = rng.uniform(smallest, 1), np.exp(rng.uniform(*np.log((3 / 4, 4 / 3))))
        width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
        if width <= 1 and height <= 1:
            return width, height
    return 1.0, 1.0


@pytest.mark.parametrize('smallest', [0.08, 0.5, 0.95])
def test_crops_are_drawn_as_torchvision_draws_them(smallest):
    count = 4000
    keys = jax.random.split(jax.random.key(1), count)
    middle, sides = map(np.asarray, jax.jit(jax.vmap(lambda key: crop_box(key, smallest)))(keys))
    assert (np.abs(middle) + sides / 2).max() <= 0.5 + 1e-6
    area, aspect = sides.prod(1), sides[:, 0] / sides[:, 1]
    assert smallest - 1e-5 <= area.min() and area.max() <= 1 + 1e-6
    assert aspect.min() >= ASPECT[0] - 1e-5 and aspect.max() <= ASPECT[1] + 1e-5
    rng = np.random.default_rng(0)
    expected = np.array([torchvisions_sides(rng, smallest) for _ in range(count)])
    for ours, theirs in ((area, expected.prod(1)), (np.log(aspect), np.log(expected[:, 0] / expected[:, 1]))):
        grid = np.sort(np.concatenate([ours, theirs]))
        distance = np.abs(
            np.searchsorted(np.sort(ours), grid, 'right') - np.searchsorted(np.sort(theirs), grid, 'right')
        ).max()
        assert distance / count < 1.95 * np.sqrt(2 / count)  # Kolmogorov-Smirnov, p = 0.001
    free = (0.5 - sides / 2) > 0.01
    position = middle[free] / (0.5 - sides / 2)[free]
    assert abs(position.mean()) < 4 / np.sqrt(3 * free.sum())


def test_a_rectangle_covers_the_middles_between_its_corners():
    mask = np.asarray(rectangle((5, 8), jnp.array([1.0, 2.4]), jnp.array([3.0, 5.6])))
    expected = np.zeros((5, 8), bool)
    expected[1:3, 2:6] = True
    np.testing.assert_array_equal(mask, expected)
    assert not np.asarray(rectangle((5, 8), jnp.array([2.0, 2.0]), jnp.array([2.0, 6.0]))).any()
