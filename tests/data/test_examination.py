import json

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.quality import contact_sheet, examination, findings
from fer_jax.errors import UserError
from tests.data.test_near_duplicates import compressed, smooth
from tests.data.test_open_image import encoded

FACE = smooth(40)


def png(levels):
    return encoded(Image.fromarray(levels))


def inspected(examples, classes=('calm', 'cross'), published=None):
    """From tuples of id, split, label, subject, data."""
    ids, splits, labels, subjects, files = zip(*examples, strict=True)

    def read(at):
        if isinstance(files[at], Exception):
            raise files[at]
        return files[at]

    arrays = np.array(ids), np.array(splits), np.array(labels), np.array(subjects)
    return examination.Inspected(*arrays, classes, read, published or {})


def hospital():
    """One patient of every kind. Of face 0 there are three copies in train, of face 2 one in each split."""
    deep = FACE[20].astype(np.uint16) * 257
    frames = [Image.fromarray(FACE[21]), Image.fromarray(FACE[22])]
    almost = np.full((48, 48), 90, np.uint8)
    almost[::2] += 1
    rgb = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    return [
        ('copy0', 'train', 0, 'ann', png(FACE[0])),
        ('copy0 as bmp', 'train', 0, 'ann', encoded(Image.fromarray(FACE[0]), 'BMP')),
        ('copy0 cross', 'train', 1, 'ann', png(FACE[0])),
        ('copy1', 'train', 0, '', png(FACE[1])),
        ('copy1 later', 'validation', 0, '', png(FACE[1])),
        ('copy2', 'train', 1, '', png(FACE[2])),
        ('copy2 later', 'validation', 1, '', png(FACE[2])),
        ('copy2 last', 'test', 0, '', png(FACE[2])),
        ('copy3', 'test', 0, 'ann', png(FACE[3])),
        ('copy3 again', 'test', 1, 'bob', png(FACE[3])),
        ('copy4', 'other', 0, 'bob', png(FACE[4])),
        ('copy4 later', 'test', 0, 'bob', png(FACE[4])),
        ('near', 'train', 0, '', png(FACE[5])),
        ('near jpeg', 'test', 0, '', png(compressed(FACE[5]))),
        ('black', 'train', 0, '', png(np.zeros((48, 48), np.uint8))),
        ('red', 'train', 0, '', png(np.full((48, 48, 3), (255, 0, 0), np.uint8))),
        ('almost', 'train', 0, '', png(almost)),
        ('reddish', 'train', 0, '', png(np.dstack([np.full((48, 48), 255, np.uint8), FACE[24], FACE[25]]))),
        ('tiny', 'train', 0, '', png(FACE[6][:20, :30])),
        ('wide', 'train', 0, '', png(FACE[7][:30].repeat(3, 1))),
        ('truncated', 'train', 0, '', encoded(Image.fromarray(FACE[8]), 'JPEG')[:-100]),
        ('text.jpg', 'train', 1, '', b'not a picture\n'),
        ('empty', 'train', -1, '', b''),
        ('gone', 'train', 0, '', FileNotFoundError('gone.png is not there')),
        ('deep', 'train', 0, '', png(deep)),
        ('cmyk', 'train', 0, '', encoded(Image.fromarray(rgb).convert('CMYK'), 'JPEG')),
        ('moving', 'train', 0, '', encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])),
        ('glass', 'train', 0, '', png(np.dstack([rgb[::-1], FACE[23]]))),
    ]


@pytest.fixture(scope='module')
def report():
    return examination.examine(inspected(hospital()), workers=2)


def names(found):
    return {example['id'] for example in found}


def test_single_images(report):
    found = report.to_json()
    assert {example['id']: example['reason'].split(' (')[0] for example in found['unreadable']} == {
        'truncated': 'image file is truncated',
        'text.jpg': "no known image format, it begins with b'not a pi'",
        'empty': 'an empty file',
        'gone': 'gone.png is not there',
    }
    assert {example['id']: example['constant'] for example in found['blank']} == {
        'black': True, 'red': True, 'almost': False,
    }  # fmt: skip
    assert [example | {'split': ''} for example in found['tiny']] == [
        {'id': 'tiny', 'split': '', 'label': 'calm', 'height': 20, 'width': 30}
    ]
    assert names(found['odd_shaped']) == {'wide'}
    assert {example['id']: example['notes'] for example in found['unusual']} == {
        'deep': ['16-bit'], 'cmyk': ['CMYK'], 'moving': ['several frames'], 'glass': ['alpha'],
    }  # fmt: skip
    assert list(report.data.ids[report.constant]) == ['black', 'red']
    assert found['unlabelled'] == 1


def test_groups(report):
    exact = report.to_json()['duplicates']
    assert [[example['id'] for example in group] for group in exact['members']] == [
        ['copy0', 'copy0 as bmp', 'copy0 cross'],
        ['copy1', 'copy1 later'],
        ['copy2', 'copy2 later', 'copy2 last'],
        ['copy3', 'copy3 again'],
        ['copy4', 'copy4 later'],
    ]
    assert (exact['groups'], exact['images'], exact['conflicting'], exact['across_splits']) == (5, 12, 3, 3)
    assert exact['leaks'] == {
        'test': {'any': 2, 'other': 1, 'train': 1, 'validation': 1}, 'validation': {'any': 2, 'train': 2},
    }  # fmt: skip
    near = report.to_json()['near_duplicates']
    assert [[example['id'] for example in group] for group in near['members']] == [['near', 'near jpeg']]
    assert near['leaks'] == {'test': {'any': 1, 'train': 1}}


def test_near_leaks_are_counted_beyond_the_exact_ones():
    files = [('train', png(FACE[0])), ('test', png(FACE[0])), ('test', png(compressed(FACE[0])))]
    examples = [(str(at), split, 0, '', data) for at, (split, data) in enumerate(files)]
    found = examination.examine(inspected(examples), workers=1).to_json()
    assert found['duplicates']['leaks'] == found['near_duplicates']['leaks'] == {'test': {'any': 1, 'train': 1}}
    assert [example['id'] for example in found['near_duplicates']['members'][0]] == ['0', '1', '2']


def test_the_same_bytes_in_another_shape_are_no_copy():
    levels = FACE[0].reshape(24, 96)
    examples = [(str(at), 'all', 0, '', png(image)) for at, image in enumerate((levels, levels.reshape(96, 24)))]
    assert examination.examine(inspected(examples), workers=1).duplicates == []


def test_subjects_in_two_splits(report):
    assert report.to_json()['subjects'] == {
        'known': 2,
        'in_two_splits': [
            {'subject': 'ann', 'images': {'test': 1, 'train': 3}},
            {'subject': 'bob', 'images': {'other': 1, 'test': 2}},
        ],
    }


@pytest.mark.parametrize(
    ('kinds', 'expected'),
    [
        (['unreadable'], {'truncated', 'text.jpg', 'empty', 'gone'}),
        (['blank'], {'black', 'red', 'almost'}),
        (['tiny'], {'tiny'}),
        (['duplicates'], {'copy0 as bmp', 'copy0 cross', 'copy3 again'}),
        (['conflicts'], {'copy0', 'copy0 as bmp', 'copy0 cross'}),
        (['leaks'], {'copy1', 'copy2', 'copy2 later', 'copy4'}),
        (['tiny', 'blank'], {'tiny', 'black', 'red', 'almost'}),
        ([], set()),
    ],
)
def test_what_is_dropped(report, kinds, expected):
    assert set(report.data.ids[report.dropped(kinds)]) == expected


def test_dropping_an_unknown_kind(report):
    with pytest.raises(UserError, match="--drop='ghosts' is unknown; there are unreadable, blank"):
        report.dropped(['blank', 'ghosts'])


def test_after_dropping_nothing_is_left_to_find():
    patients = hospital()
    while (drop := examination.examine(inspected(patients), workers=1).dropped(findings.KINDS)).any():
        patients = [patient for patient, out in zip(patients, drop, strict=True) if not out]
    found = examination.examine(inspected(patients), workers=1).to_json()
    assert found['duplicates']['groups'] == 0 and not found['blank'] and not found['tiny'] and not found['unreadable']
    assert names(found['odd_shaped']) == {'wide'}


@pytest.mark.parametrize('workers', [1, 7])
def test_the_report_is_the_same_for_any_number_of_workers(report, workers):
    again = examination.examine(inspected(hospital()), workers=workers).to_json()
    assert json.dumps(again) == json.dumps(report.to_json())
    assert json.loads(json.dumps(again)) == again


def test_mean_and_std_weigh_every_training_image_alike():
    levels = [np.random.default_rng(at).integers(0, 50 * at + 50, (30, 25 + at, 3), np.uint8) for at in range(4)]
    examples = [(str(at), 'train' if at else 'test', 0, '', png(image)) for at, image in enumerate(levels)]
    report = examination.examine(inspected(examples), workers=1)
    mean = np.mean([image.mean((0, 1)) / 255 for image in levels[1:]], axis=0)
    square = np.mean([((image / 255) ** 2).mean((0, 1)) for image in levels[1:]], axis=0)
    np.testing.assert_allclose(report.mean, mean, atol=1e-6)
    np.testing.assert_allclose(report.std, np.sqrt(square - mean**2), atol=1e-6)
    assert report.to_json()['statistics']['split'] == 'train'


def test_one_of_another_shape_is_odd_where_99_percent_share_one():
    def examples(odd):
        return [(str(at), 'all', 0, '', png(smooth(1, at)[0][: 47 if at < odd else 48])) for at in range(100)]

    assert examination.examine(inspected(examples(1)), workers=1).odd.sum() == 1
    assert examination.examine(inspected(examples(2)), workers=1).odd.sum() == 0


def test_the_table_says_what_is_good_and_what_to_do(report):
    table = report.table()
    assert len(table.splitlines()) <= 40 and max(map(len, table.splitlines())) <= 120
    for line in (
        'exact duplicates              5  groups, 12 images; --drop duplicates',
        'leaks into test             2  of 5 have a copy: 1 in other, 1 in train, 1 in validation',
        'leaks into test             1  more of 5 have a near copy: 1 in train',
        'blank                         3  black, red, almost; 2 of them constant; --drop blank',
        'unreadable                    4  truncated, text.jpg, empty ...; --drop unreadable',
        '1 16-bit, 1 CMYK, 1 alpha, 1 several frames: decoded',
        'subjects in 2 splits          2  2 are known; ann, bob: split by subject',
    ):
        assert line in table
    healthy = [(str(at), 'train', at % 2, '', png(FACE[at])) for at in range(10)]
    table = examination.examine(inspected(healthy, published={'train': (5, 5)}), workers=1).table()
    assert '!!' not in table and 'all 2 are the official ones' in table
    table = examination.examine(inspected(healthy, published={'train': (5, 6), 'test': (3,)}), workers=1).table()
    assert '!!  counts that differ            2  of 3 differ from the official ones' in table
    assert '5 (not 6)' in table and '0 (not 3)' in table


def test_many_classes_unknown_bytes_and_no_labels_are_printable():
    classes = tuple(f'person{at}' for at in range(500))
    examples = [(f'\udcff{at}' + 'x' * 80, 'train', at % 400, '', b'') for at in range(450)]
    table = examination.examine(inspected(examples, classes), workers=1).table()
    assert len(table.splitlines()) <= 40
    assert '... 489 more, by size' in table and '100 classes are empty' in table
    table.encode()
    unlabelled = [(str(at), 'all', -1, '', png(FACE[at])) for at in range(3)]
    assert '3 without a label' in examination.examine(inspected(unlabelled, ()), workers=1).table()


def test_the_sheets_show_every_class_and_every_kind(report, tmp_path):
    (tmp_path / 'findings_old.png').write_bytes(b'')
    paths = contact_sheet.write_sheets(report, report.data, tmp_path)
    kinds = ['blank', 'tiny', 'odd_shaped', 'unusual', 'duplicates', 'conflicts', 'leaks', 'near_duplicates']
    assert [path.name for path in paths] == ['classes.png', *(f'findings_{kind}.png' for kind in kinds)]
    assert sorted(paths) == sorted(tmp_path.iterdir())
    for path in paths:
        assert Image.open(path).width < 1600
    sheet = np.asarray(Image.open(tmp_path / 'findings_tiny.png').convert('L'))
    tile = Image.fromarray(FACE[6][:20, :30]).resize((100, 67), Image.Resampling.BICUBIC)
    patches = np.lib.stride_tricks.sliding_window_view(sheet, (67, 100))[50:80, 8:24]
    assert np.abs(patches.astype(int) - np.asarray(tile)).mean((2, 3)).min() == 0
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in contact_sheet.write_sheets(report, report.data, tmp_path)] == before


def test_ck48(shared_data):
    paths = sorted((shared_data / 'ck48').glob('*/*.png'))
    classes = tuple(sorted({path.parent.name for path in paths}))
    parts = [path.stem.split('_') for path in paths]
    data = examination.Inspected(
        np.array([f'{path.parent.name}/{path.name}' for path in paths]),
        np.full(len(paths), 'all'),
        np.array([classes.index(path.parent.name) for path in paths]),
        np.array([part[0] for part in parts]),
        classes,
        lambda at: paths[at].read_bytes(),
        {'all': (981,)},
    )
    found = examination.examine(data, workers=2).to_json()
    assert (found['images'], found['subjects']['known'], found['duplicates']['groups']) == (981, 118, 0)
    assert found['subjects']['in_two_splits'] == []
    halves = data._replace(
        subjects=np.array(['_'.join(part[:2]) for part in parts]), splits=np.array(['train', 'test'] * 490 + ['train'])
    )
    found = examination.examine(halves, workers=2).to_json()
    assert (found['subjects']['known'], len(found['subjects']['in_two_splits'])) == (327, 327)
