"""One spelling of a class, whatever folders and manifests call it."""

import unicodedata

import numpy as np
import pytest

from fer_jax.data import dataset
from fer_jax.data.sources import folder
from fer_jax.data.tables.class_names import alike, canonical_names
from tests.data.images import link_ck48


@pytest.mark.parametrize(
    ('classes', 'names'),
    [
        (('Happy', 'HAPPY ', 'happy', 'Fear'), {'Happy': 'happy', 'HAPPY ': 'happy', 'Fear': 'fear'}),
        (('happiness', 'SAD', '3_surprise'), {'happiness': 'happy', 'SAD': 'sad', '3_surprise': 'surprise'}),
        (('joy', 'happiness', 'Anger'), {'Anger': 'angry'}),
        (('calm', 'neutral', 'sadness'), {'sadness': 'sad'}),
        (('1_sad', '2_sad'), {}),
        (('AN', 'HA', 'sad'), {'AN': 'angry', 'HA': 'happy'}),
        (('co', 'su', 'smile'), {}),
        (('smile', 'Smile'), {}),
    ],
)
def test_expressions_have_one_name(classes, names):
    assert canonical_names(classes) == names


def test_names_that_differ_in_case_or_spaces_alone_are_warned_of():
    (line,) = alike(('smile', 'Smile ', 'grin', 'S mile'))
    assert "'smile', 'Smile ', 'S mile' differ in case or spaces alone; data.rename" in line


def test_spellings_of_a_folder_become_one_class_and_can_stay_apart(shared_data, tmp_path):
    faces = link_ck48(shared_data, tmp_path / 'faces', ('happy', 'sadness', 'anger'), 9)
    (faces / 'HAPPY ').mkdir()
    for path in sorted((faces / 'happy').iterdir())[:4]:
        path.rename(faces / 'HAPPY ' / path.name)
    settings = {'dir': str(faces), 'splits': {'train': 'train'}, 'image_size': 48, 'channels': 1, 'root': tmp_path}
    data = dataset.load_dataset(**settings, canonical_classes=True)
    assert set(data.classes) == {'happy', 'sad', 'angry'}
    assert np.bincount(data.splits['train'].labels).sum() == len(data.splits['train'].ids)
    (note,) = data.notes
    assert "'HAPPY ' is happy" in note and "'sadness' is sad" in note
    same = dataset.load_dataset(**settings, canonical_classes=True, drop_classes=('sadness',), rename=(('anger', 'x'),))
    assert set(same.classes) == {'happy', 'x'}
    apart = dataset.load_dataset(**settings)
    assert set(apart.classes) == {'HAPPY ', 'happy', 'sadness', 'anger'}
    assert "'HAPPY ', 'happy' differ in case or spaces alone" in ' '.join(apart.notes)


def test_two_unicode_forms_of_a_name_are_one_class(shared_data, tmp_path):
    forms = [unicodedata.normalize(form, 'fâché') for form in ('NFC', 'NFD')]
    for split, name in zip(('train', 'test'), forms, strict=True):
        faces = link_ck48(shared_data, tmp_path / 'faces' / split, ('happy', 'anger'), 10)
        (faces / 'anger').rename(faces / name)
    table = folder.scan(tmp_path / 'faces')
    assert table.classes == (forms[0], 'happy') and np.bincount(table.labels).tolist() == [20, 20]
