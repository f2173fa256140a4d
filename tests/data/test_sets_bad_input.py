"""What a copy of a set may lack, double or contradict, and what then is said."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.sets import affectnet, celeb_a, ckplus, jaffe, lfw, rafdb, vggface2
from fer_jax.data.sources import prepared
from fer_jax.errors import UserError


def picture(path, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size).save(path)


def ids(reading):
    return [example.id for split in reading.splits for example in reading.examples(split)]


@pytest.mark.parametrize(
    ('reader', 'image'),
    [
        (ckplus, 'anger/S010_004_00000017.png'),
        (jaffe, 'KA.AN1.39.tiff'),
        (rafdb, 'train/1/train_00001_aligned.jpg'),
        (affectnet, 'train_set/images/0.jpg'),
        (vggface2, 'train/n000002/0001_01.jpg'),
        (lfw, 'Al_Gore/Al_Gore_0001.jpg'),
    ],
)
def test_two_copies_below_one_source_are_not_read_as_one_set(tmp_path, reader, image):
    for copy in ('first', 'second'):
        picture(tmp_path / copy / image)
    with pytest.raises(UserError, match='give one of'):
        reader.read(tmp_path)


def test_the_small_sets_keep_their_size_and_grey(shared_data, tmp_path):
    assert ckplus.read(shared_data / 'ck48').image_shape == (48, 48, 1)
    picture(tmp_path / 'train' / '1' / 'train_00001_aligned.jpg', (100, 100))
    assert rafdb.read(tmp_path).image_shape == (100, 100, 3)


@pytest.mark.parametrize(
    ('path', 'rows', 'message'),
    [
        ('train/8/train_00001_aligned.jpg', None, 'classes 1 to 7'),
        ('train/1/test_0001_aligned.jpg', None, 'classes 1 to 7'),
        ('train/1/train_00001_aligned.jpg', 'train_00001_aligned.jpg,2', 'row 1: .* has label 2 but lies in folder 1'),
    ],
)
def test_rafdb_folders_that_contradict_themselves(tmp_path, path, rows, message):
    picture(tmp_path / path)
    if rows:
        (tmp_path / 'train_labels.csv').write_text(f'image,label\n{rows}\n')
    with pytest.raises(UserError, match=message):
        rafdb.read(tmp_path)


def test_rafdb_list_names_an_image_twice(tmp_path):
    (tmp_path / rafdb.LIST).write_text('train_00001.jpg 5\ntrain_00001.jpg 4\n')
    with pytest.raises(UserError, match='row 2: train_00001.jpg is listed before'):
        rafdb.read(tmp_path)


@pytest.mark.parametrize('text', ['inf', '1e999', 'nan', '3.7', '8', '', '-1', '3 4'])
def test_ckplus_emotion_that_is_none(tmp_path, text):
    for number in range(1, 5):
        picture(tmp_path / 'cohn-kanade-images' / 'S010' / '002' / f'S010_002_0000000{number}.png')
    (tmp_path / 'S010_002_00000004_emotion.txt').write_text(text)
    with pytest.raises(UserError, match='S010_002_00000004_emotion.txt holds'):
        ckplus.read(tmp_path)


def test_ckplus_sequences_without_the_emotions(tmp_path):
    picture(tmp_path / 'cohn-kanade-images' / 'S010' / '002' / 'S010_002_00000001.png')
    with pytest.raises(UserError, match='unpack Emotion_labels.zip'):
        ckplus.read(tmp_path)


def affectnet_csv(root, *cells):
    """One row a split; `cells` are landmarks, expression, valence and arousal of the training image."""
    points = ';'.join(map(str, range(136)))
    for name in ('1/a.jpg', '1/b.jpg'):
        picture(root / 'Manually_Annotated_Images' / name)
    landmarks, *rest = cells or (points, 1, 0.5, 0.5)
    row = ','.join(['1/a.jpg', '0,0,9,9', landmarks, *map(str, rest)])
    (root / 'training.csv').write_text(f'{",".join(affectnet.COLUMNS)}\n{row}\n{row}\n')
    (root / 'validation.csv').write_text(f'1/b.jpg,0,0,9,9,{points},2,-2,-2\n')  # some copies have no heading


def test_affectnet_repeated_rows_and_a_list_without_heading(tmp_path):
    affectnet_csv(tmp_path)
    reading = affectnet.read(tmp_path)
    assert ids(reading) == ['1/a.jpg', '1/b.jpg']
    assert reading.notes == ('1 rows repeat an image of a row above and are left out',)
    (tmp_path / 'validation.csv').unlink()
    with pytest.raises(UserError, match='not both'):
        affectnet.read(tmp_path)


POINTS = ';'.join(map(str, range(136)))


@pytest.mark.parametrize(
    ('cells', 'message'),
    [
        ((POINTS, 11, 0, 0), "row 1: '11', expected a whole number from 0 to 10"),
        ((POINTS, 1, 7, 0), 'row 1: .* 7, expected -1 to 1'),
        ((POINTS, 1, 'nan', 0), 'row 1: .* nan, expected -1 to 1'),
        ((POINTS, 1, 'x', 0), 'row 1: valence, arousal or landmarks'),
        (('1;2;3', 1, 0, 0), 'row 1: valence, arousal or landmarks'),
    ],
)
def test_affectnet_rows_that_are_malformed(tmp_path, cells, message):
    affectnet_csv(tmp_path, *cells)
    with pytest.raises(UserError, match=f'training.csv, {message}'):
        affectnet.read(tmp_path)


def header_only(shape):
    """An npy file that announces far more than it holds."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {'descr': '<f8', 'fortran_order': False, 'shape': shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    'data', [b'', b'PK\x05\x06' + bytes(18), b'\x80\x04N.', header_only((1 << 50,)), header_only(())]
)
def test_affectnet_npy_files_that_are_none(tmp_path, data):
    place = tmp_path / 'train_set' / 'annotations'
    picture(tmp_path / 'train_set' / 'images' / '0.jpg')
    with pytest.raises(UserError, match='1 images lack an annotation, such as train_set/images/0.jpg'):
        affectnet.read(tmp_path)
    place.mkdir()
    for kind in ('exp', 'val', 'aro'):
        np.save(place / f'0_{kind}.npy', 0.5 if kind != 'exp' else 3)
    (place / '0_lnd.npy').write_bytes(data)
    reading = affectnet.read(tmp_path)
    with pytest.raises(UserError, match='0_lnd.npy holds no 68 points'):
        list(reading.examples('train'))
    (place / '0_exp.npy').write_bytes(data)
    with pytest.raises(UserError, match='0_exp.npy holds no number'):
        affectnet.read(tmp_path)
    for value in (3.5, np.nan, np.inf, 11):
        np.save(place / '0_exp.npy', value)
        with pytest.raises(UserError, match='0_exp.npy holds .*, expected 0 to 10'):
            affectnet.read(tmp_path)


def test_affectnet_ids_differ_between_the_splits_of_the_npy_release(tmp_path):
    for split in ('train_set', 'val_set'):
        picture(tmp_path / split / 'images' / '0.jpg')
        (tmp_path / split / 'annotations').mkdir()
        for kind in ('exp', 'val', 'aro'):
            np.save(tmp_path / split / 'annotations' / f'0_{kind}.npy', np.array('0'))
    assert ids(affectnet.read(tmp_path)) == ['train_set/0.jpg', 'val_set/0.jpg']


NAMES = ' '.join(f'Attribute_{number}' for number in range(40))


def celeb_lists(root, **changes):
    """Three images; `changes` replace whole lists."""
    rows = ''.join(f'00000{number}.jpg {"-1 " * 39} 1\n' for number in (1, 2, 3))
    lists = {
        'list_attr_celeba': f'3\n{NAMES}\n{rows}',
        'list_eval_partition': '000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n',
    } | changes
    root.mkdir(exist_ok=True)
    for stem, text in lists.items():
        (root / f'{stem}.txt').write_text(text)
    return root


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'list_attr_celeba': f'3\n{NAMES}\n000001.jpg {"1 " * 40}\n'}, 'announces 3 rows and has 1'),
        ({'list_attr_celeba': f'1\n{NAMES}\n000001.jpg {"7 " * 40}\n'}, "row 1: '7', expected .* from -1 to 1"),
        ({'list_attr_celeba': f'1\n{NAMES}\n000001.jpg {"x " * 40}\n'}, 'row 1: not whole numbers'),
        ({'list_attr_celeba': f'1\n{NAMES}\n000001.jpg 1\n'}, 'row 1: 2 cells, expected 41'),
        ({'list_eval_partition': '000001.jpg 0\n'}, 'partition lacks 2 images of list_attr_celeba, such as 000002.jpg'),
        ({'list_eval_partition': '000001.jpg\n'}, 'list_eval_partition.txt, row 1: 1 cells, expected 2'),
        ({'list_eval_partition': '000001.jpg 0\n000001.jpg 1\n'}, 'row 2: 000001.jpg is listed before'),
        ({'identity_CelebA': '000001.jpg 9\n'}, 'identities lacks 2 images'),
        ({}, 'none of the 3 images that list_attr_celeba lists'),
    ],
)
def test_celeb_a_lists_that_are_wrong(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        celeb_a.read(celeb_lists(tmp_path / 'celeb', **changes))


@pytest.mark.parametrize('archive', [False, True])
def test_celeb_a_takes_the_aligned_images_packed_or_not(tmp_path, archive):
    root = celeb_lists(tmp_path / 'celeb')
    for number in (1, 2, 3):
        picture(tmp_path / 'img_align_celeba' / f'00000{number}.jpg')
        picture(root / 'img_celeba' / f'00000{number}.jpg', (20, 20))  # of the same names, not aligned
    if archive:
        shutil.make_archive(str(root / 'img_align_celeba'), 'zip', tmp_path, 'img_align_celeba')
    else:
        shutil.move(tmp_path / 'img_align_celeba', root)
    reading = celeb_a.read(root)
    assert reading.splits == {'train': 1, 'validation': 1, 'test': 1}
    example = next(iter(reading.examples('test')))
    assert example.id == '000003.jpg' and Image.open(io.BytesIO(example.image)).size == (8, 8)
    assert example.targets['attributes'].tolist() == [0] * 39 + [1]


def test_vggface2_lists_decide_and_a_missing_split_is_no_harm(tmp_path):
    for image in ('n000002/0001_01.jpg', 'n000002/0002_01.jpg', 'n000003/0001_01.jpg'):
        picture(tmp_path / 'vgg' / 'train' / image)
    (tmp_path / 'vgg' / 'train_list.txt').write_text('n000002/0001_01.jpg\nn000003/0001_01.jpg\nn000003/0009_01.jpg\n')
    reading = vggface2.read(tmp_path / 'vgg')
    assert ids(reading) == ['n000002/0001_01.jpg', 'n000003/0001_01.jpg']
    assert reading.notes == (
        '1 images of train_list.txt are missing',
        '1 images that no list names are left out',
    )
    prepared.prepare('vggface2', tmp_path / 'vgg', tmp_path / 'sets')
    table = prepared.open_table('vggface2', tmp_path / 'sets')
    assert table.splits.tolist() == ['train', 'train'] and table.subjects.tolist() == ['n000002', 'n000003']


def test_lfw_as_it_is_distributed(tmp_path):
    for name in ('Al_Gore/Al_Gore_0001.jpg', 'Al_Gore/Al_Gore_0002.jpg', 'Zico/Zico_0001.jpg'):
        picture(tmp_path / 'lfw' / name)
    reading = lfw.read(Path(shutil.make_archive(str(tmp_path / 'lfw'), 'gztar', tmp_path, 'lfw')))
    assert ids(reading) == ['Al_Gore/Al_Gore_0001.jpg', 'Al_Gore/Al_Gore_0002.jpg', 'Zico/Zico_0001.jpg']
    assert reading.classes == ('Al_Gore', 'Zico')
