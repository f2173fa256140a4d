"""What is read of a folder as people have them, and what is said of the rest."""

import importlib.util
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import dataset
from fer_jax.data.imaging.codec import decode, open_image
from fer_jax.data.imaging.image_files import describe_left_out, list_image_files
from fer_jax.data.imaging.pillow_decoder import missing_decoder
from fer_jax.data.sources import folder
from fer_jax.errors import UserError
from tests.data.images import link_ck48

ROLES = {'train': 'train', 'validation': 'validation', 'test': 'test'}


def load(directory, **changes):
    settings = {
        'dir': str(directory),
        'splits': ROLES,
        'image_size': 48,
        'channels': 1,
        'root': directory,
        'canonical_classes': True,
    }
    return dataset.load_dataset(**(settings | changes))


@pytest.fixture
def faces(shared_data, tmp_path):
    """Three classes of CK+, copied."""
    linked = link_ck48(shared_data, tmp_path / 'linked', ('happy', 'surprise', 'anger'), 12)
    return Path(shutil.copytree(linked, tmp_path / 'faces'))


def encoded(path, kind, **options):
    buffer = io.BytesIO()
    Image.open(path).convert('RGB').save(buffer, kind, **options)
    return buffer.getvalue()


def test_all_that_can_be_read_is_read_and_all_else_is_named(faces):
    pytest.importorskip('pillow_heif').register_heif_opener()
    happy = sorted((faces / 'happy').iterdir())
    (faces / 'happy' / 'more' / 'deep').mkdir(parents=True)
    kinds = {'a.jfif': 'JPEG', 'b.jpe': 'JPEG', 'more/C.JPEG': 'JPEG', 'more/deep/d.PNG': 'PNG', 'e.avif': 'AVIF'}
    kinds |= {'f.HEIC': 'HEIF', 'g.heif': 'HEIF', 'i.apng': 'PNG'}
    for (name, kind), source in zip(kinds.items(), happy, strict=False):
        (faces / 'happy' / name).write_bytes(encoded(source, kind))
    (faces / 'happy' / 'notes.txt').write_text('of the photographer')
    (faces / 'happy' / '.hidden.png').write_bytes(happy[0].read_bytes())
    (faces / 'happy' / '.ipynb_checkpoints').mkdir()
    (faces / '__MACOSX' / 'happy').mkdir(parents=True)
    (faces / '.DS_Store').write_bytes(b'\0')
    (faces / 'lone.png').write_bytes(happy[0].read_bytes())
    (faces / 'anger' / 'lost.png').symlink_to(faces / 'nowhere.png')
    os.mkfifo(faces / 'anger' / 'pipe.png')
    data = load(faces)
    ids = {name for split in data.splits.values() for name in split.ids}
    assert {f'happy/{name}' for name in kinds} < ids and len(ids) == 36 + len(kinds)
    assert data.classes == ('angry', 'happy', 'surprise')
    assert set(data.notes) == {
        'left out: 4 (hidden): .DS_Store, __MACOSX/, happy/.hidden.png ...',
        'left out: 1 (no image by its suffix): happy/notes.txt',
        'left out: 1 (a link to nothing): anger/lost.png',
        'left out: 1 (no regular file): anger/pipe.png',
        'left out: 1 (beside the class folders): lone.png',
        "names of expressions: 'anger' is angry; data.canonical_classes=False keeps them as they are",
    }
    for split in data.splits.values():
        assert split.read(np.arange(len(split.ids))).shape == (len(split.ids), 48, 48, 1)


def test_heic_and_avif_are_the_images_that_they_were_made_of(shared_data):
    pytest.importorskip('pillow_heif').register_heif_opener()
    path = sorted((shared_data / 'photos').glob('*.jpg'))[0]
    image = Image.open(path).convert('RGB').resize((320, 240))
    for kind in ('HEIF', 'AVIF'):
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=90)
        pixels = decode(buffer.getvalue(), None, 3, 'photo')
        assert pixels.shape == (240, 320, 3)
        assert np.abs(pixels.astype(int) - np.asarray(image)).mean() < 6
        damaged = bytearray(buffer.getvalue())
        damaged[len(damaged) // 2 :] = b''
        with pytest.raises(ValueError, match='.'):
            open_image(bytes(damaged))


def test_heic_without_its_decoder_is_left_out_with_the_remedy(faces, monkeypatch):
    pytest.importorskip('pillow_heif').register_heif_opener()
    data = encoded(next((faces / 'happy').iterdir()), 'HEIF')
    (faces / 'happy' / 'phone.heic').write_bytes(data)
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    missing_decoder.cache_clear()
    try:
        listing = list_image_files(faces)
        (line,) = describe_left_out(listing.left_out)
        assert "pip install 'fer_jax[heif]'): happy/phone.heic" in line and len(listing.images) == 36
        with pytest.raises(ValueError, match=r"pip install 'fer_jax\[heif\]'"):
            open_image(data)
    finally:
        missing_decoder.cache_clear()


def test_links_may_lead_in_a_circle(faces):
    (faces / 'happy' / 'up').symlink_to('..')
    (faces / 'happy' / 'self').symlink_to('.')
    (faces / 'anger' / 'friend').symlink_to('../surprise')
    (faces / 'surprise' / 'friend').symlink_to('../anger')
    (faces / 'loop').symlink_to('loop')
    table = folder.scan(faces)
    assert len(table) == 36 and table.classes == ('anger', 'happy', 'surprise')
    links = [name for names in table.left_out.values() for name in names]
    assert sorted(links) == ['anger/friend/', 'happy/self/', 'happy/up/', 'loop', 'surprise/friend/']


def test_a_class_may_be_a_link_to_a_folder_elsewhere(faces, tmp_path):
    (faces / 'surprise').rename(tmp_path / 'elsewhere')
    (faces / 'surprise').symlink_to(tmp_path / 'elsewhere')
    assert np.bincount(folder.scan(faces).labels).tolist() == [12, 12, 12]


def test_one_class_is_refused_with_the_layout(faces, tmp_path):
    yolo = tmp_path / 'yolo'
    for split in ('train', 'test'):
        (yolo / split / 'labels').mkdir(parents=True)
        (yolo / split / 'labels' / '0.txt').write_text('0 0.5 0.5 1 1')
        shutil.copytree(faces / 'happy', yolo / split / 'images')
    with pytest.raises(UserError) as caught:
        load(yolo)
    message = str(caught.value)
    assert "has the one class 'images'; two or more are needed" in message
    assert 'train/images/ (12 images)' in message and 'train/labels/ (0 images)' in message
    with pytest.raises(UserError, match=r"perhaps data.dir='.*/wrapped/faces' is meant"):
        load(Path(shutil.copytree(faces, tmp_path / 'wrapped' / 'faces')).parent)
    with pytest.raises(UserError, match=r"has the one class 'happy'; two or more are needed"):
        load(faces, drop_classes=('anger', 'surprise'))
    listed = tmp_path / 'one.csv'
    listed.write_text('path,label\n' + ''.join(f'{path},x\n' for path in (faces / 'happy').iterdir()))
    with pytest.raises(UserError, match=r"one has the one class 'x'; two or more are needed"):
        load(faces, dir='', manifest=str(listed))


@pytest.mark.parametrize('names', [('Training', 'PublicTest', 'PrivateTest'), ('train_set', 'val', 'test-set')])
def test_usual_names_of_splits_are_understood(faces, tmp_path, names):
    for name in names:
        shutil.copytree(faces, tmp_path / 'split' / name)
    (tmp_path / 'split' / '__MACOSX' / 'train').mkdir(parents=True)
    data = load(tmp_path / 'split')
    assert {role: len(split.ids) for role, split in data.splits.items()} == dict.fromkeys(ROLES, 36)
    assert set(data.splits['validation'].ids) == {name for name in data.splits['validation'].ids if name[0] in 'Pv'}
    again = load(tmp_path / 'split', splits={'train': 'Training', 'validation': 'dev', 'test': 'PrivateTest'})
    assert again.fingerprint == data.fingerprint


def test_splits_beside_other_folders_are_refused(faces, tmp_path):
    for name in ('train', 'test', 'extra'):
        shutil.copytree(faces, tmp_path / 'split' / name)
    with pytest.raises(UserError, match='holds the splits test, train and beside them extra; move these elsewhere'):
        load(tmp_path / 'split')


def test_a_class_may_be_missing_where_it_is_scored_but_not_where_it_is_learnt(faces, tmp_path):
    for name in ('train', 'validation', 'test'):
        shutil.copytree(faces, tmp_path / 'split' / name)
    shutil.rmtree(tmp_path / 'split' / 'validation' / 'anger')
    for path in (tmp_path / 'split' / 'test' / 'happy').iterdir():
        path.unlink()
    data = load(tmp_path / 'split')
    assert {role: np.bincount(split.labels, minlength=3).tolist() for role, split in data.splits.items()} == {
        'train': [12, 12, 12],
        'validation': [0, 12, 12],
        'test': [12, 0, 12],
    }
    assert {
        'validation has no image of angry: its scores are those of the other classes',
        'test has no image of happy: its scores are those of the other classes',
    } < set(data.notes)
    shutil.rmtree(tmp_path / 'split' / 'train' / 'surprise')
    with pytest.raises(UserError, match=r"images of surprise to score, and none to train .*drop_classes=\('surprise',"):
        load(tmp_path / 'split')
    assert load(tmp_path / 'split', drop_classes=('surprise',)).classes == ('angry', 'happy')


def test_everything_broken_is_one_message_with_the_command_that_leaves_it_out(faces):
    happy, anger = sorted((faces / 'happy').iterdir()), sorted((faces / 'anger').iterdir())
    happy[0].write_bytes(b'')
    happy[1].write_bytes(happy[1].read_bytes()[:300])
    anger[0].write_text('no image')
    Image.new('L', (48, 48), 7).save(anger[1])
    (faces / 'anger' / 'notes.txt').write_text('stray')
    with pytest.raises(UserError) as caught:
        load(faces)
    message = str(caught.value)
    assert message.startswith('3 of the 36 images of faces cannot be read')
    for path in (*happy[:2], *anger[:2]):
        assert f'{path.parent.name}/{path.name}' in message
    assert '1 are blank' in message and 'anger/notes.txt' in message
    assert f'--dataset folder --source {faces} --drop unreadable,blank --keep faces_kept.csv' in message


def test_what_breaks_while_it_trains_is_the_same_message(faces):
    data = load(faces)
    for path in sorted((faces / 'happy').iterdir())[:5]:
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r'5 of the 36 images of faces cannot be read(.|\n)*--drop unreadable --keep'):
        for split in data.splits.values():
            split.read(np.arange(len(split.ids)))
