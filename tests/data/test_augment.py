import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import default
from fer_jax.config.check import check_config
from fer_jax.data.augmentation import augment as augmentation
from fer_jax.data.augmentation.augment import TRIVIAL, Augment, augment_batch, draw_params, example_keys
from fer_jax.data.augmentation.colour import LUMA
from fer_jax.data.augmentation.geometry import resize
from fer_jax.errors import UserError
from tests.data.images import ck48, photographs
from tests.lazy import lazy

ndimage = lazy('scipy.ndimage')

quickly = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})  # compiled quickly
augment = quickly(augmentation.augment, static_argnums=(2, 3))
KEYS = example_keys(jax.random.key(0), 16)
EVERYTHING = Augment.of(
    default.augment(
        'strong', hue=0.1, blur=1.0, noise=0.05, contrast=0.3, brightness=0.2, erase_area=(0.05, 0.1)
    ).to_dict()
)


@pytest.fixture(scope='module')
def faces(shared_data):
    return ck48(shared_data, 16)


def looks(settings, count=4000, channels=3):
    """`count` looks, as arrays."""
    drawn = quickly(jax.vmap(lambda key: draw_params(key, settings, channels)))(example_keys(jax.random.key(7), count))
    return jax.tree.map(np.asarray, drawn)


def drawn_by(keys, settings):
    """The looks that `augment` gives to grey images."""
    return jax.tree.map(
        np.asarray, quickly(jax.vmap(lambda key: draw_params(jax.random.split(key)[0], settings, 1)))(keys)
    )


def assert_uniform(values, low, high):
    """In the range, with its mean and variance within 4.5 standard errors."""
    count, width = len(values), high - low
    assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6
    assert abs(values.mean() - (low + high) / 2) < 4.5 * width / np.sqrt(12 * count)
    assert abs(values.var() - width**2 / 12) < 4.5 * width**2 / np.sqrt(180 * count)


def assert_share(hits, probability):
    assert abs(hits.mean() - probability) < 4.5 * np.sqrt(probability * (1 - probability) / len(hits))


def test_without_settings_augmenting_is_resizing(faces):
    np.testing.assert_allclose(augment(faces, KEYS, 64, Augment()), resize(faces, 64), atol=1e-3)
    np.testing.assert_array_equal(augment(faces, KEYS, 48, Augment()), faces.astype(np.float32))


@pytest.mark.parametrize('tiny', [{'shift': 1e-7}, {'rotate': 1e-5}, {'crop': 1.0}])
@pytest.mark.parametrize('target', [64, 20])
def test_the_affine_way_resizes_as_evaluation_does(tiny, target):
    """Antialiased where it shrinks, on noise, which would show."""
    images = np.random.default_rng(2).integers(0, 256, (16, 48, 48, 1), np.uint8)
    np.testing.assert_allclose(augment(images, KEYS, target, Augment(**tiny)), resize(images, target), atol=0.02)


@pytest.mark.parametrize('tiny', [0.0, 1e-7])
def test_a_flip_is_numpys(faces, tiny):
    """`tiny` takes the way of the resampling."""
    flipped = np.asarray(augment(faces, KEYS, 48, Augment(flip=1.0, shift=tiny)))
    np.testing.assert_allclose(flipped, faces[:, :, ::-1], atol=0.01)


def test_geometry_is_drawn_from_the_stated_ranges():
    """Read back from the matrices: x and y of the middle, lengths and directions of the axes."""
    back = looks(Augment(shift=0.1)).back
    assert_uniform(back[:, 0, 2], -0.1, 0.1)
    assert_uniform(back[:, 1, 2], -0.1, 0.1)
    assert abs(np.corrcoef(back[:, 0, 2], back[:, 1, 2])[0, 1]) < 0.07

    factor = 1 / looks(Augment(scale=0.25)).back[:, 0, 0]
    assert_uniform(np.where(factor > 1, factor - 1, 1 - 1 / factor), -0.25, 0.25)

    back = looks(Augment(rotate=30.0)).back
    assert_uniform(np.rad2deg(np.arctan2(back[:, 1, 0], back[:, 0, 0])), -30, 30)
    np.testing.assert_allclose(np.linalg.det(back[:, :, :2]), 1, atol=1e-5)

    forward = np.linalg.inv(looks(Augment(shear=0.2)).back[:, :, :2])
    assert_uniform(forward[:, 0, 1], -0.2, 0.2)
    assert_uniform(forward[:, 1, 0], -0.2, 0.2)

    back = looks(Augment(flip=0.3)).back
    assert_share(back[:, 0, 0] < 0, 0.3)

    areas = np.linalg.det(looks(Augment(crop=0.4)).back[:, :, :2])
    assert 0.4 <= areas.min() < 0.42 and areas.max() <= 1


def test_colour_is_drawn_from_the_stated_ranges():
    drawn = looks(
        Augment(brightness=0.1, contrast=0.3, saturation=0.4, hue=0.2, grey=0.25, blur=1.2, noise=0.06), count=8000
    )
    assert_uniform(drawn.brightness, -0.1, 0.1)
    assert_uniform(drawn.contrast, 0.7, 1.3)
    assert_uniform(drawn.hue, -0.2, 0.2)
    assert_uniform(drawn.blur, 0, 1.2)
    assert_uniform(drawn.noise, 0, 0.06)
    assert_share(drawn.saturation == 0, 0.25)
    assert_uniform(drawn.saturation[drawn.saturation > 0], 0.6, 1.4)


def test_one_setting_leaves_the_draws_of_the_others():
    some = {'flip': 0.5, 'shift': 0.1, 'contrast': 0.2, 'erase': 0.5}
    one, other = looks(Augment(**some), 50), looks(Augment(**some, hue=0.1, blur=1.0, grey=0.5), 50)
    for name in ('mirror', 'back', 'contrast', 'hole'):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize('channels', [1, 3])
def test_trivial_does_one_thing_or_none(channels):
    drawn = looks(Augment(trivial=0.8), 12_000, channels)
    turn = drawn.back[:, :, :2]
    forward = np.linalg.inv(turn)
    lengths = np.linalg.norm(forward, axis=1)
    moved = np.abs(drawn.back[:, :, 2]).max(1) > 1e-6
    turned = (np.abs(np.linalg.det(turn) - 1) < 1e-5) & (np.abs(turn[:, 0, 1] + turn[:, 1, 0]) < 1e-6)
    done = {
        'shift': moved,
        'rotate': turned & (np.abs(turn[:, 0, 1]) > 1e-6),
        'scale': (np.abs(lengths[:, 0] - 1) > 1e-6) & (np.abs(forward[:, 0, 1]) < 1e-7),
        'shear': np.abs(forward[:, 0, 1] + forward[:, 1, 0]) > 1e-6,
        'brightness': drawn.brightness != 0,
        'contrast': drawn.contrast != 1,
        'blur': drawn.blur != 0,
        'noise': drawn.noise != 0,
        'saturation': drawn.saturation != 1,
        'hue': drawn.hue != 0,
    }
    assert set(done) == set(TRIVIAL)
    together = np.stack(list(done.values()))
    assert together.sum(0).max() == 1
    available = 10 if channels == 3 else 8
    for name, hits in done.items():
        if channels == 3 or name not in ('saturation', 'hue'):
            assert abs(hits.mean() - 0.8 / (available + 1)) < 0.012
        else:
            assert not hits.any()
    assert abs(together.any(0).mean() - 0.8 * available / (available + 1)) < 0.02
    assert_uniform(drawn.contrast[done['contrast']], 0.1, 1.9)
    assert_uniform(drawn.blur[done['blur']], 0, 1.5)


def test_trivial_widens_a_range_and_keeps_a_wider_one():
    drawn = looks(Augment(trivial=1.0, brightness=0.5, contrast=0.2), 12_000)
    assert_uniform(drawn.brightness, -0.5, 0.5)
    wide = np.abs(drawn.contrast - 1) > 0.2
    assert abs(wide.mean() - (0.7 / 0.9) / 11) < 0.012


def test_chances_are_independent():
    drawn = looks(Augment(flip=0.5, grey=0.5, erase=0.5, trivial=0.5))
    changed = (drawn.brightness != 0) | (drawn.contrast != 1) | (drawn.blur != 0) | (drawn.noise != 0)
    events = [drawn.mirror, drawn.saturation == 0, drawn.hole[:, 1, 0] > drawn.hole[:, 0, 0], changed]
    assert np.abs(np.corrcoef(events) - np.eye(4)).max() < 4.5 / np.sqrt(4000)


def test_brightness_and_contrast_of_whole_images(faces):
    settings = Augment(brightness=0.1, contrast=0.3)
    result = np.asarray(augment(faces, KEYS, 48, settings))
    drawn = drawn_by(KEYS, settings)
    for image, one, factor, more in zip(faces.astype(float), result, drawn.contrast, drawn.brightness, strict=True):
        changed = image.mean() + (image - image.mean()) * float(factor) + 255 * float(more)
        np.testing.assert_allclose(one, np.clip(changed, 0, 255), atol=0.02)


def test_grey_takes_the_colours_away(shared_data):
    photos = photographs(shared_data, 32)
    grey = np.asarray(augment(photos, KEYS[:6], 32, Augment(grey=1.0, hue=0.3)))
    np.testing.assert_allclose(grey, np.broadcast_to((photos @ LUMA)[..., None], grey.shape), atol=0.01)


def test_noise_has_the_drawn_deviation_and_is_white():
    flat = np.full((40, 64, 64, 1), 128, np.uint8)
    keys = example_keys(jax.random.key(4), 40)
    noise = np.asarray(augment(flat, keys, 64, Augment(noise=0.1)))[..., 0] - 128
    drawn = drawn_by(keys, Augment(noise=0.1)).noise
    np.testing.assert_allclose(noise.std((1, 2)), 255 * drawn, rtol=0.05)
    neighbours = (noise[:, :, 1:] * noise[:, :, :-1]).mean((1, 2)) / noise.var((1, 2))
    assert np.abs(neighbours).max() < 0.07
    tails = np.abs(noise[drawn > 0.05] / noise[drawn > 0.05].std((1, 2), keepdims=True)) > 2
    assert abs(tails.mean() - 0.0455) < 0.002


def test_blur_stays_in_its_range(faces):
    result = np.asarray(augment(faces, KEYS, 48, Augment(blur=1.5)))
    drawn = drawn_by(KEYS, Augment(blur=1.5)).blur
    for face, one, sigma in zip(faces, result, drawn, strict=True):
        expected = ndimage.gaussian_filter(
            face.astype(float), (float(sigma), float(sigma), 0), mode='nearest', radius=5
        )
        np.testing.assert_allclose(one, expected, atol=0.05)


def test_erasing_takes_the_stated_area_and_aspect_with_the_mean():
    keys = example_keys(jax.random.key(3), 600)
    images = np.random.default_rng(0).integers(1, 255, (600, 40, 40, 1), np.uint8)
    settings = Augment(erase=0.5, erase_area=(0.1, 0.3), erase_aspect=(0.5, 2.0))
    result = np.asarray(augment(images, keys, 40, settings))
    changed = (result != images)[..., 0]
    share = changed.mean((1, 2))
    erased = share > 0.01
    assert_share(erased, 0.5)
    assert share[erased].min() > 0.08 and share[erased].max() < 0.33
    assert abs(share[erased].mean() - 0.2) < 0.01
    for image, one, mask in zip(images[erased][:30], result[erased][:30], changed[erased][:30], strict=True):
        np.testing.assert_allclose(one[..., 0][mask], image.mean(), atol=0.01)
        tall, wide = np.ptp(np.flatnonzero(mask.any(1))) + 1, np.ptp(np.flatnonzero(mask.any(0))) + 1
        assert mask.sum() >= 0.97 * tall * wide  # a pixel may have had the mean
        assert 0.5 / 1.25 < tall / wide < 2.0 * 1.25


def test_holes_keep_their_area_and_stay_inside():
    settings = Augment(erase=1.0, erase_area=(0.5, 0.9), erase_aspect=(0.1, 10.0))
    start, end = np.moveaxis(looks(settings).hole, 1, 0)
    assert start.min() >= 0 and end.max() <= 1 + 1e-6
    assert_uniform((end - start).prod(1), 0.5, 0.9)


def test_an_example_does_not_depend_on_its_batch(faces):
    settings = dataclasses.replace(EVERYTHING, mixup=0.0, cutmix=0.0)
    together = np.asarray(augment(faces, KEYS, 48, settings))
    assert together.dtype == np.float32 and together.min() >= 0 and together.max() <= 255
    for index in (0, 7, 15):
        others = np.roll(faces[::-1], index, 0)
        others[index] = faces[index]
        keys = example_keys(jax.random.key(9), 16).at[index].set(KEYS[index])
        np.testing.assert_array_equal(augment(others, keys, 48, settings)[index], together[index])
        alone = np.asarray(augment(faces[index : index + 1], KEYS[index : index + 1], 48, settings))
        np.testing.assert_allclose(alone[0], together[index], atol=1e-2)
    assert not np.array_equal(together, augment(faces, example_keys(jax.random.key(1), 16), 48, settings))


def test_a_batch_keeps_hard_targets_unless_it_is_mixed(faces):
    labels = jnp.arange(16) % 7
    key = jax.random.key(2)
    batch = quickly(augment_batch, static_argnames=('size', 'classes', 'settings'))
    images, targets = batch(faces, labels, key, size=48, classes=7, settings=Augment(flip=0.5))
    np.testing.assert_array_equal(targets, labels)
    mixing = Augment(flip=0.5, mixup=0.4)
    mixed, soft = batch(faces, labels, key, size=48, classes=7, settings=mixing)
    again, same = batch(faces, jax.nn.one_hot(labels, 7), key, size=48, classes=7, settings=mixing)
    np.testing.assert_array_equal(mixed, again)
    np.testing.assert_array_equal(soft, same)
    share = soft[0, labels[0]]
    expected = share * images + (1 - share) * np.roll(images, 1, 0)
    np.testing.assert_allclose(mixed, expected, atol=0.01)


def checked(**fields):
    config = default.get_config().to_dict()
    config['phases'] = [default.phase(augment=fields).to_dict()]
    check_config(config)
    return Augment.of(fields)


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match='augment.rotation is not a config key; the nearest is .*augment.rotate'):
        checked(rotation=10)
    for name in (field.name for field in dataclasses.fields(Augment)):
        for value in (-0.1, 1000.0, float('nan'), 'much', None, True):
            with pytest.raises(UserError, match=f'augment.{name}={value!r}'):
                checked(**{name: value})
    for name, value in {'rotate': 180.0, 'shear': 0.5, 'hue': 0.5, 'blur': 8.0, 'mixup': 16.0, 'cutmix': 16.0}.items():
        assert getattr(checked(**{name: value}), name) == value
    for area in ([0.3, 0.1], [0.1], [0.0, 0.2], [0.1, 1.5], 0.1, ['a', 'b']):
        with pytest.raises(UserError, match='augment.erase_area'):
            checked(erase_area=area)
    assert Augment.of({'erase_area': [0.1, 0.2]}).erase_area == (0.1, 0.2)
    assert Augment.of({'erase_aspect': (0.3, 3.3)}).erase_aspect == (0.3, 3.3)


def test_configs_hold_every_setting_and_presets_give_numbers():
    none = default.get_config().data.augment
    assert Augment.of(none.to_dict()) == Augment(flip=0.5)
    assert set(none) == {field.name for field in dataclasses.fields(Augment)}
    assert Augment.of(default.augment().to_dict()) == Augment()
    for weaker, stronger in (('none', 'light'), ('light', 'fer'), ('fer', 'strong')):
        small, large = default.augment(weaker), default.augment(stronger)
        assert small != large
        assert all(large[name] >= small[name] for name in small if name != 'erase_area')
        Augment.of(large.to_dict())
    assert default.augment('fer', rotate=3.0, erase_area=(0.1, 0.2)).rotate == 3.0
    assert isinstance(default.phase(augment=default.augment('none')).augment, ConfigDict)
    with pytest.raises(ValueError, match='choose none, light, fer, strong'):
        default.augment('much')


def test_keys_differ_by_position():
    numbers = jnp.stack([jax.random.key_data(key) for key in example_keys(jax.random.key(0), 64)])
    assert len(np.unique(np.asarray(numbers), axis=0)) == 64
