import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fer_jax.data.augment import Augment, augment, example_keys, resize
from fer_jax.errors import UserError


def smooth_images(count, size, channels=1, seed=0):
    """Blurred noise: interpolations agree on it where they agree at all."""
    noise = np.random.default_rng(seed).normal(size=(count, size, size, channels))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


IMAGES = smooth_images(16, 48)
KEYS = example_keys(jax.random.key(0), 16)


@pytest.mark.parametrize(('size', 'target'), [(48, 64), (48, 96), (96, 48), (64, 50), (48, 48)])
def test_resize_is_pillows_antialiased_bilinear(size, target):
    images = smooth_images(3, size, 3)
    ours = np.asarray(resize(images, target))
    for image, result in zip(images, ours, strict=True):
        expected = np.asarray(Image.fromarray(image).resize((target, target), Image.Resampling.BILINEAR), float)
        assert np.abs(result - expected).max() <= 1


def test_without_settings_augmenting_is_resizing():
    np.testing.assert_allclose(augment(IMAGES, KEYS, 64, Augment()), resize(IMAGES, 64), atol=1e-3)
    np.testing.assert_array_equal(augment(IMAGES, KEYS, 48, Augment()), IMAGES.astype(np.float32))


@pytest.mark.parametrize('tiny', [{'shift': 1e-7}, {'rotate': 1e-5}])
@pytest.mark.parametrize('target', [64, 20])
def test_the_affine_way_resizes_as_evaluation_does(tiny, target):
    """Away from the edges where it grows; with antialiasing where it shrinks, on noise, which would show."""
    noise = np.random.default_rng(2).integers(0, 256, (16, 48, 48, 1), np.uint8)
    np.testing.assert_allclose(augment(noise, KEYS, target, Augment(**tiny)), resize(noise, target), atol=0.02)


@pytest.mark.parametrize('tiny', [0.0, 1e-7])
def test_a_flip_is_numpys(tiny):
    """`tiny` takes the way of the affine resampling, by matrix products."""
    flipped = np.asarray(augment(IMAGES, KEYS, 48, Augment(flip=1.0, shift=tiny)))
    np.testing.assert_allclose(flipped, IMAGES[:, :, ::-1], atol=0.01)


def test_half_of_many_images_are_flipped():
    keys = example_keys(jax.random.key(5), 2000)
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, None, :, None], (2000, 8, 8, 1))
    flipped = np.asarray(augment(ramp, keys, 8, Augment(flip=0.5)))[:, 0, 0, 0] == 7
    assert abs(flipped.mean() - 0.5) < 4 * (0.25 / 2000) ** 0.5


def draws(keys):
    return np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (12,)))(keys))


@pytest.mark.parametrize(
    'settings',
    [
        Augment(shift=0.15),
        Augment(scale=0.3),
        Augment(shift=0.1, scale=0.2),
        Augment(rotate=30.0),
        Augment(shift=0.1, scale=0.2, rotate=25.0, flip=0.5),
    ],
)
def test_the_affine_map_is_scipys(settings):
    """Shift, scale, rotation and flip against scipy.ndimage.affine_transform, away from the edges."""
    ours = np.asarray(augment(IMAGES, KEYS, 48, settings))[..., 0]
    for image, result, draw in zip(IMAGES[..., 0].astype(float), ours, draws(KEYS), strict=True):
        factor = (1 + settings.scale) ** (2 * draw[1] - 1)
        angle = np.deg2rad(settings.rotate * (2 * draw[2] - 1))
        shift = settings.shift * (2 * draw[3:5] - 1) * 48
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / factor
        if draw[0] < settings.flip:
            turn = turn @ np.diag([1, -1])
        middle = np.array([23.5, 23.5])
        expected = ndimage.affine_transform(image, turn, middle - turn @ middle - shift, order=1, mode='nearest')
        assert np.abs(result - expected).max() < 1


def test_an_example_does_not_depend_on_its_batch():
    settings = Augment(0.5, 0.1, 0.1, 10.0, 0.2, 0.2, 0.5)
    together = np.asarray(augment(IMAGES, KEYS, 48, settings))
    for index in (0, 7, 15):
        alone = np.asarray(augment(IMAGES[index : index + 1], KEYS[index : index + 1], 48, settings))
        np.testing.assert_allclose(alone[0], together[index], atol=1e-3)
    assert not np.array_equal(together, augment(IMAGES, example_keys(jax.random.key(1), 16), 48, settings))


def test_brightness_and_contrast():
    result = np.asarray(augment(IMAGES, KEYS, 48, Augment(brightness=0.1, contrast=0.3)))
    for image, one, draw in zip(IMAGES.astype(float), result, draws(KEYS), strict=True):
        changed = image.mean() + (image - image.mean()) * (1 + 0.3 * (2 * draw[5] - 1)) + 25.5 * (2 * draw[6] - 1)
        np.testing.assert_allclose(one, np.clip(changed, 0, 255), atol=0.01)


def test_erasing_takes_the_stated_area_with_the_mean():
    keys = example_keys(jax.random.key(3), 600)
    images = np.random.default_rng(0).integers(1, 255, (600, 40, 40, 1), np.uint8)
    images[:, 0, 0] = 0
    result = np.asarray(augment(images, keys, 40, Augment(erase=0.5, erase_area=(0.1, 0.3))))
    changed = result != images
    share = changed.mean((1, 2, 3))
    erased = share > 0.01
    assert abs(erased.mean() - 0.5) < 4 * (0.25 / 600) ** 0.5
    assert share[erased].min() > 0.08 and share[erased].max() < 0.33
    assert abs(share[erased].mean() - 0.2) < 0.01
    for image, one, mask in zip(images[:20], result[:20], changed[:20], strict=True):
        np.testing.assert_allclose(one[mask], image.mean(), atol=0.01)
        rows, columns = mask.any((1, 2)), mask.any((0, 2))
        assert mask.sum() <= rows.sum() * columns.sum()


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match='augment.rotation is unknown; the nearest is rotate'):
        Augment.of({'rotation': 10})
    with pytest.raises(UserError, match='augment.flip=2 is out of range'):
        Augment.of({'flip': 2})
    for area in ([0.3, 0.1], [0.1], [0.0, 0.2], [0.1, 1.5]):
        with pytest.raises(UserError, match='augment.erase_area'):
            Augment.of({'erase_area': area})
    assert Augment.of({'erase_area': [0.1, 0.2]}).erase_area == (0.1, 0.2)


def test_keys_differ_by_position():
    numbers = jnp.stack([jax.random.key_data(key) for key in example_keys(jax.random.key(0), 64)])
    assert len(np.unique(np.asarray(numbers), axis=0)) == 64
