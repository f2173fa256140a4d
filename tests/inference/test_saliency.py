"""Occlusion maps: against sums made by hand, by deletion, and on mirrored images."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fer_jax.inference import saliency
from fer_jax.inference.predictor import Predictor
from fer_jax.models.network import ModelSpec, build
from tests.data.images import ck48
from tests.inference.test_predictor import compilations

RNG = np.random.default_rng(0)


class Sums:
    """A network whose logits are weighted sums of the pixels, float [S, S, 2]."""

    def __init__(self, weights, activation='softmax'):
        self.spec = ModelSpec('resnet8_small', {'primary': ('a', 'b')}, len(weights), 1, activation=activation)
        self.weights = weights

    def normalise(self, images):
        return images / 255

    def forward(self, variables, x):
        return {'primary': (x * self.weights).sum((1, 2))}, {}, None


def test_further_calls_compile_nothing(untrained):
    """Whatever the size of the images; a batch is padded to one of a few sizes."""
    predictor = Predictor(untrained)
    images = [RNG.integers(0, 256, (side, side, 3), np.uint8) for side in (48, 40, 61)]
    alone = predictor.explain(images[:1], np.array([2]))
    with compilations() as names:
        again = predictor.explain(images[1], np.array([2]))
        np.testing.assert_array_equal(predictor.explain(images[:1], np.array([2])).heats, alone.heats)
    assert names == [] and again.maps.shape == (1, 7, 8, 8)
    with pytest.raises(ValueError, match='expected images and one class for each, got 3 and'):
        predictor.explain(images, np.array([2]))


@pytest.mark.parametrize('size', [16, 50])
def test_a_map_is_bright_where_the_class_is_decided(size):
    """The second logit is the sum of one cell, in row 5 and column 2, whose edges are symmetric at any size."""
    edges = np.rint(np.linspace(0, size, 9)).astype(int)
    cell = np.zeros((size, size))
    cell[edges[5] : edges[6], edges[2] : edges[3]] = 1 / (edges[6] - edges[5]) / (edges[3] - edges[2])
    network = Sums(np.stack([np.zeros_like(cell), 4 * cell], -1))
    image = np.zeros((1, size, size, 1), np.uint8)
    image[0, cell > 0] = 255
    found = saliency.explain(network, None, image, np.array([1]))
    mean = image.mean() / 255
    assert np.unravel_index(found.heats.argmax(), (8, 8)) == (5, 2)
    np.testing.assert_allclose(found.maps[0, 1, 5, 2], 4 * (1 - mean), rtol=1e-4)
    np.testing.assert_allclose(found.maps[0, 1, 4, 1], (1 - mean), rtol=1e-4)  # one of the four patches over it
    assert not found.maps[0, 0].any() and not found.maps[0, :, :4].any() and not found.maps[0, :, :, 4:].any()
    loss = -np.log1p(np.exp(-4)) + np.log1p(np.exp(-4 * mean))
    np.testing.assert_allclose(found.heats[0, 5, 2], loss, rtol=1e-4)
    np.testing.assert_allclose(found.removed, loss, rtol=1e-4)
    assert found.removed_at_random < 0.5 * loss


def test_attributes_are_explained_one_by_one():
    weights = np.zeros((16, 16, 2))
    weights[:2, :2, 0] = 1
    image = np.zeros((1, 16, 16, 1), np.uint8)
    image[0, :2, :2] = 255
    found = saliency.explain(Sums(weights, 'sigmoid'), None, image, np.array([0]))
    left = 4 * image.mean() / 255
    np.testing.assert_allclose(found.heats[0, 0, 0], np.log1p(np.exp(-left)) - np.log1p(np.exp(-4)), rtol=1e-4)


@pytest.fixture(scope='module')
def portraits(shared_data):
    return ck48(shared_data, 14)


@pytest.fixture(params=['release:fer2013', 'finished', 'of_resnet18'])
def predictor(request):
    """resnet8_small at 48 and at 32 pixels, and a resnet18 at 32 pixels, whose last map has one cell."""
    if request.param == 'release:fer2013':
        return Predictor('release:fer2013')
    workdir = request.getfixturevalue(request.param)
    return Predictor(workdir[0] if isinstance(workdir, tuple) else workdir)


@pytest.mark.slow
def test_hiding_what_matters_costs_more_than_hiding_as_much_at_random(predictor, portraits):
    """In the colour that the maps were made with, and blurred, which they were not."""
    predicted = predictor(portraits).argmax(1)
    found = predictor.explain(portraits, predicted)
    assert found.removed.mean() > 2 * max(found.removed_at_random.mean(), 0)
    assert np.mean(found.removed > found.removed_at_random) > 0.7
    blurred = [np.asarray(Image.fromarray(face[..., 0]).filter(ImageFilter.GaussianBlur(8))) for face in portraits]
    cell = np.arange(48) * 8 // 48
    masks = saliency.deletion_masks(found.heats)[:, :, cell][:, :, :, cell, None]
    losses = []
    for images in (portraits, *(np.where(mask, np.stack(blurred)[..., None], portraits) for mask in masks)):
        losses.append(-np.log(predictor(images)[np.arange(len(portraits)), predicted]).mean())
    assert losses[1] - losses[0] > 1.5 * (np.mean(losses[2:]) - losses[0])


def test_the_map_of_a_mirrored_image_is_the_mirrored_map(portraits):
    """Of faces that stand at the left, so that a map that stays where it is would not pass."""
    moved = np.roll(portraits, -12, axis=2)
    moved[:, :, -12:] = moved[:, :, -13:-12]
    predictor = Predictor('release:fer2013')
    predicted = predictor(moved).argmax(1)
    ours, theirs = (predictor.explain(images, predicted).heats for images in (moved, moved[:, :, ::-1]))
    mirrored, kept = (
        np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, other, strict=True)])
        for other in (theirs[:, :, ::-1], theirs)
    )
    assert mirrored > 0.7 and mirrored > kept + 0.3


def test_masks_have_the_same_share_everywhere():
    masks = saliency.deletion_masks(RNG.normal(size=(5, 8, 8)))
    assert masks.shape == (1 + saliency.RANDOM_PLACES, 5, 8, 8) and (masks.sum((2, 3)) == 13).all()
    assert all((mask != masks[0]).any((1, 2)).all() for mask in masks[1:])


def test_a_head_of_the_last_map_alone_is_readable():
    def network(**options):
        return build(ModelSpec('resnet8_small', {'primary': ('a', 'b')}, 32, **options))

    assert saliency.readable(network())
    assert not saliency.readable(network(head='mlp'))
    assert not saliency.readable(network(head_inputs=('layer2', 'layer3')))
