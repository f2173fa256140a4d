import shutil

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import dataset
from fer_jax.data.imaging.codec import decode
from fer_jax.data.imaging.crop_folder import LOG
from fer_jax.data.sources import folder, manifest
from fer_jax.errors import UserError

ROLES = {'train': 'train', 'validation': 'validation', 'test': 'test'}


def make(root, counts, size=(20, 16)):
    """Class folders of plain images, each of its own grey."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new('RGB', size, (40 * label, index, 200)).save(root / name / f'{index:03d}.png')


def load(directory, **changes):
    settings = {'splits': ROLES, 'image_size': 12, 'channels': 3, 'root': directory} | changes
    return dataset.load_dataset(dir=str(directory), **settings)


def test_class_folders_are_dealt_into_disjoint_stratified_splits(tmp_path):
    make(tmp_path, {'angry': 40, 'happy': 100, 'sad': 4})
    (tmp_path / '.cache').mkdir()
    (tmp_path / 'happy' / 'notes.txt').write_text('not an image')
    data = load(tmp_path)
    assert data.classes == ('angry', 'happy', 'sad')
    ids = [set(split.ids) for split in data.splits.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 144
    counts = {role: np.bincount(split.labels).tolist() for role, split in data.splits.items()}
    assert counts == {'train': [28, 70, 2], 'validation': [6, 15, 1], 'test': [6, 15, 1]}
    split = data.splits['validation']
    for name, label, image in zip(split.ids, split.labels, split.read(np.arange(len(split.ids))), strict=True):
        assert image.shape == (12, 12, 3) and name.startswith(data.classes[label])
        assert (image == (40 * label, int(name[-7:-4]), 200)).all()


def test_the_same_images_elsewhere_split_and_fingerprint_alike(tmp_path):
    make(tmp_path / 'a', {'x': 20, 'y': 30})
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    first, second = load(tmp_path / 'a'), load(tmp_path / 'b')
    assert first.fingerprint == second.fingerprint
    for role in ROLES:
        assert list(first.splits[role].ids) == list(second.splits[role].ids)
    Image.new('RGB', (20, 16), (1, 2, 3)).save(tmp_path / 'b' / 'x' / '000.png')
    assert load(tmp_path / 'b').fingerprint != first.fingerprint


def test_split_folders_are_taken_as_they_are_and_validation_is_carved_from_train(tmp_path):
    for split in ('train', 'test'):
        make(tmp_path / split, {'x': 30, 'y': 50})
    data = load(tmp_path)
    assert {role: len(split.ids) for role, split in data.splits.items()} == {'train': 72, 'validation': 8, 'test': 80}
    make(tmp_path / 'val', {'x': 3, 'y': 3})
    data = load(tmp_path)
    assert {role: len(split.ids) for role, split in data.splits.items()} == {'train': 80, 'validation': 6, 'test': 80}


def test_how_faces_were_cut_out_is_told_by_the_folder_also_through_a_manifest(tmp_path):
    make(tmp_path / 'crops', {'x': 20, 'y': 30})
    assert load(tmp_path / 'crops').faces() == {'grey': False}
    (tmp_path / 'crops' / LOG).write_text('{"margin": 0.4, "size": 64, "align": true}\n')
    known = {'grey': False, 'margin': 0.4, 'aligned': True}
    assert load(tmp_path / 'crops').faces() == known
    manifest.write_manifest(
        tmp_path / 'kept.csv', folder.scan(tmp_path / 'crops'), np.ones(50, bool), tmp_path / 'crops'
    )
    settings = {'splits': ROLES, 'image_size': 12, 'channels': 3, 'root': tmp_path}
    assert dataset.load_dataset(manifest=str(tmp_path / 'kept.csv'), **settings).faces() == known
    for path in (tmp_path / 'crops').rglob('*.png'):
        Image.open(path).convert('L').convert('RGB').save(path)
    assert load(tmp_path / 'crops').faces() == known | {'grey': True}


def test_ck48_is_a_folder(shared_data):
    data = load(shared_data / 'ck48', image_size=48, channels=1)
    assert len(data.classes) == 7
    assert sum(len(split.ids) for split in data.splits.values()) == 981
    assert data.splits['test'].read(np.array([0])).shape == (1, 48, 48, 1)


def test_exif_orientation_and_the_middle_square(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / 'turned.png', exif=exif)
    decoded = decode((tmp_path / 'turned.png').read_bytes(), 20, 3, 'turned.png')
    assert decoded.shape == (20, 20, 3) and (decoded == 255).all()


def test_resizing_is_pillows_antialiased_bilinear(shared_data):
    path = next((shared_data / 'photos').glob('*.jpg'))
    decoded = decode(path.read_bytes(), 64, 3, path.name)
    with Image.open(path) as image:
        side = min(image.size)
        box = ((image.width - side) / 2, (image.height - side) / 2, (image.width + side) / 2, (image.height + side) / 2)
        expected = np.asarray(image.convert('RGB').resize((64, 64), Image.Resampling.BILINEAR, box=box), int)
    assert np.abs(decoded - expected).mean() < 3  # the crop falls between pixels


@pytest.mark.parametrize(
    ('broken', 'message'),
    [
        (lambda root: shutil.rmtree(root), 'is not a folder'),
        (lambda root: [shutil.rmtree(root / name) for name in ('x', 'y')], 'has no class folders (found 1 files)'),
        (lambda root: [path.unlink() for path in (root / 'x').iterdir()], 'x/ (0 images)'),
        (lambda root: (root / 'z').mkdir(), 'z has no images'),
        (lambda root: [path.unlink() for path in root.glob('*/*.png')], 'has no images'),
    ],
)
def test_a_wrong_folder_is_named(tmp_path, broken, message):
    root = tmp_path / 'faces'
    make(root, {'x': 5, 'y': 5})
    (root / 'readme.txt').write_text('hello')
    broken(root)
    with pytest.raises(UserError) as caught:
        load(root)
    assert message in str(caught.value) and str(root) in str(caught.value)


def test_an_unreadable_image_is_named(tmp_path):
    make(tmp_path, {'x': 5, 'y': 5})
    whole = (tmp_path / 'x' / '000.png').read_bytes()
    for content in (b'text', whole[: len(whole) // 2], b''):
        for path in (tmp_path / 'x').iterdir():
            path.write_bytes(content)
        with pytest.raises(UserError, match=r'5 of the 10 images of .* cannot be read: x/000.png'):
            split = load(tmp_path).splits['train']
            split.read(np.arange(len(split.ids)))
