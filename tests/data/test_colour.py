"""Colours against Pillow and the standard library's YIQ, blur against OpenCV and SciPy, on real images."""

import colorsys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fer_jax.data.augmentation.colour import LUMA, blur, chrominance, recolour
from tests.data.images import ck48, photographs
from tests.lazy import lazy

ndimage = lazy('scipy.ndimage')


@pytest.fixture(scope='module')
def photos(shared_data):
    return photographs(shared_data, 40)


@pytest.fixture(scope='module')
def face(shared_data):
    return ck48(shared_data, 1)[0]


def recoloured(image, saturation=1.0, hue=0.0, contrast=1.0, brightness=0.0):
    matrix = chrominance(jnp.float32(saturation), jnp.float32(hue)) if image.shape[-1] == 3 else None
    return np.asarray(recolour(jnp.asarray(image, jnp.float32), matrix, contrast=contrast, brightness=brightness))


def assert_close_in_bytes(ours, expected, levels):
    assert np.abs(np.clip(ours, 0, 255) - np.asarray(expected, float)).max() <= levels


@pytest.mark.parametrize('factor', [0.0, 0.4, 1.0, 1.7])
def test_saturation_is_pillows(photos, factor):
    for photo in photos:
        expected = ImageEnhance.Color(Image.fromarray(photo)).enhance(factor)
        assert_close_in_bytes(recoloured(photo, saturation=factor), expected, 1.6)


@pytest.mark.parametrize('factor', [0.0, 0.6, 1.5])
def test_contrast_is_pillows(photos, face, factor):
    """Pillow rounds the mean to a whole level."""
    for photo in photos:
        expected = ImageEnhance.Contrast(Image.fromarray(photo)).enhance(factor)
        assert_close_in_bytes(recoloured(photo, contrast=factor), expected, 2)
    expected = np.asarray(ImageEnhance.Contrast(Image.fromarray(face[..., 0])).enhance(factor))
    assert_close_in_bytes(recoloured(face, contrast=factor)[..., 0], expected, 2)


def test_brightness_is_added(photos, face):
    for image in (*photos, face):
        np.testing.assert_allclose(recoloured(image, brightness=-0.2), image.astype(float) - 51, atol=0.01)


@pytest.mark.parametrize('turn', [-0.3, 0.1, 0.5])
def test_hue_turns_the_chrominance_of_yiq(photos, turn):
    """The standard library's YIQ has luma weights of two digits, so this is not exact."""
    for photo in photos:
        ours = recoloured(photo, hue=turn)
        before = np.array([colorsys.rgb_to_yiq(*pixel) for pixel in photo.reshape(-1, 3) / 255])
        after = np.array([colorsys.rgb_to_yiq(*pixel) for pixel in ours.reshape(-1, 3) / 255])
        turned = (before[:, 1] + 1j * before[:, 2]) * np.exp(2j * np.pi * turn)
        np.testing.assert_allclose(after[:, 0], before[:, 0], atol=0.01)
        np.testing.assert_allclose(after[:, 1] + 1j * after[:, 2], turned, atol=0.01)


def test_hue_keeps_luma_and_greys_and_adds_up(photos):
    for photo in photos:
        np.testing.assert_allclose(recoloured(photo, hue=0.23) @ LUMA, photo @ LUMA, atol=0.01)
        np.testing.assert_allclose(recoloured(recoloured(photo, hue=0.3), hue=0.7), photo, atol=0.02)
    grey = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None, None] * 17, (16, 4, 3))
    np.testing.assert_allclose(recoloured(grey, saturation=1.9, hue=0.4), grey, atol=0.01)


@pytest.mark.parametrize('sigma', [0.3, 0.8, 2.0])
def test_blur_is_a_gaussian(photos, face, sigma):
    cv2 = pytest.importorskip('cv2')
    for image in (*photos, face):
        ours = np.asarray(blur(jnp.asarray(image, jnp.float32), jnp.float32(sigma), 2.0))
        kernel = cv2.getGaussianKernel(13, sigma)
        expected = cv2.sepFilter2D(image.astype(np.float32), -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(ours, expected.reshape(image.shape), atol=0.01)
        scipys = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode='nearest', radius=6)
        np.testing.assert_allclose(ours, scipys, atol=0.05)


def test_no_blur_is_none(face):
    np.testing.assert_array_equal(blur(jnp.asarray(face, jnp.float32), jnp.float32(0), 1.5), face)
