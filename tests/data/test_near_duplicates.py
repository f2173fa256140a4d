import io

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.quality import near_duplicates
from tests.lazy import lazy

ndimage = lazy('scipy.ndimage')
csgraph = lazy('scipy.sparse.csgraph')


def smooth(count, seed=0):
    """Random images of low frequency, as unlike as faces are."""
    noise = np.random.default_rng(seed).normal(size=(count, 48, 48))
    soft = ndimage.gaussian_filter(noise, (0, 4, 4))
    return np.uint8((128 + 40 * soft / soft.std((1, 2), keepdims=True)).clip(0, 255))


def thumbnails(images):
    size = (near_duplicates.THUMBNAIL_SIDE, near_duplicates.THUMBNAIL_SIDE)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images])


def compressed(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=30)
    return np.asarray(Image.open(buffer))


def cropped(image):
    return np.asarray(Image.fromarray(image[1:]).resize((48, 48), Image.Resampling.BICUBIC))


def darker(image):
    return np.uint8(image * 0.6 + 20)


def marked(image):
    image = image.copy()
    image[20:22, 8:40] = 160
    return image


@pytest.mark.parametrize('change', [compressed, cropped, darker, marked, np.fliplr])
def test_changed_copies_are_found_and_nothing_else(change):
    images = smooth(400)
    copies = np.stack([change(image) for image in images[::4]])
    found = near_duplicates.groups(thumbnails([*images, *copies]))
    assert {tuple(group) for group in found} == {(4 * at, 400 + at) for at in range(100)}


def test_upside_down_is_no_copy_and_no_contrast_no_evidence():
    images = smooth(50)
    flat = np.full((20, 48, 48), 7, np.uint8)
    assert near_duplicates.groups(thumbnails([*images, *images[:, ::-1], *flat])) == []
    assert near_duplicates.groups(thumbnails(images[:1])) == []
    assert near_duplicates.groups(np.zeros((0, 16, 16), np.uint8)) == []


def test_chains_are_one_group():
    image = smooth(1)[0].astype(float)
    rest = smooth(300, seed=1)
    chain = [np.uint8(image * (1 - share) + rest[0] * share) for share in np.linspace(0, 1, 12)]
    found = near_duplicates.groups(thumbnails([*chain, *rest[1:]]))
    assert [list(group) for group in found] == [list(range(12))]


def test_on_real_faces_it_finds_what_comparing_all_pairs_finds(shared_data):
    paths = sorted((shared_data / 'ck48').glob('*/*.png'))
    assert len(paths) == 981
    small = thumbnails([np.asarray(Image.open(path).convert('L')) for path in paths])
    plain, mirrored = small.reshape(981, -1), small[:, :, ::-1].reshape(981, -1)
    correlation = np.corrcoef(plain, mirrored)
    np.fill_diagonal(correlation[:981, 981:], 0)  # a face and its own mirror image
    linked = (correlation[:981, :981] > 0.97) | (correlation[:981, 981:] > 0.97)
    _, group_of = csgraph.connected_components(linked)
    expected = {tuple(np.flatnonzero(group_of == at)) for at in np.flatnonzero(np.bincount(group_of) > 1)}
    found = near_duplicates.groups(small)
    assert {tuple(group) for group in found} == expected
    people = [path.name.split('_')[0] for path in paths]
    assert all(len({people[at] for at in group}) == 1 for group in found)
