"""The sheet of augmented images: what it shows, and what it refuses."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import default
from fer_jax import preview_augmentation as preview
from fer_jax.data.tables.label_text import describe_label
from fer_jax.errors import UserError
from tests.data.images import EXPRESSIONS, ck48

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def config(shared_data):
    config = default.get_config()
    config.model.update({'image_size': 48, 'channels': 1})
    config.data.update({'name': '', 'dir': str(shared_data / 'ck48'), 'augment': default.augment('none', flip=1.0)})
    config.phases = (default.phase(), default.phase(augment=default.augment('none', cutmix=1.0)))
    return config


def cells(picture, rows, columns):
    """The images of the sheet [rows, columns, 96, 96]; each is shown twice its size."""
    pixels = np.asarray(picture)[..., 0]
    starts = [[(4 + row * 124, 4 + column * 100) for column in range(columns)] for row in range(rows)]
    return np.array([[pixels[top : top + 96, left : left + 96] for top, left in line] for line in starts])


def test_the_first_column_is_the_original_and_the_others_are_augmented(config):
    shown = cells(preview.sheet(config, rows=3, draws=2, phase=0), 3, 3)
    np.testing.assert_array_equal(shown[:, 1], shown[:, 0, :, ::-1])
    np.testing.assert_array_equal(shown[:, 2], shown[:, 0, :, ::-1])
    assert len(np.unique(shown[:, 0].reshape(3, -1), axis=0)) == 3


def test_a_phase_has_its_own_augmentation(config):
    """Phase 1 flips nothing and pastes the row above."""
    shown = cells(preview.sheet(config, rows=3, draws=1, phase=1), 3, 2)
    own, above = shown[:, 0], np.roll(shown[:, 0], 1, 0)
    assert ((shown[:, 1] == own) | (shown[:, 1] == above)).all()
    assert (shown[:, 1] != own).any()


def test_pixels_are_the_images(shared_data):
    faces = ck48(shared_data, 2)
    labels = np.array([0, 4])
    shown = cells(preview.paste([(faces.astype(np.float32), labels)], EXPRESSIONS), 2, 1)[:, 0]
    np.testing.assert_array_equal(shown[:, ::2, ::2], faces[..., 0])
    np.testing.assert_array_equal(shown[:, 1::2, 1::2], faces[..., 0])


@pytest.mark.parametrize(
    ('label', 'kind', 'text'),
    [
        (np.int32(4), 'shares', 'happy'),
        (np.int32(-1), 'shares', 'unknown'),
        (np.array([0, 0, 0, 0, 0.25, 0.75, 0]), 'shares', '0.75 sadness\n0.25 happy'),
        (np.array([0, 0, 1.0, 0, 0, 0, 0]), 'shares', 'disgust'),
        (np.array([1, 0, 0, 0, np.nan, 1, 0]), 'attributes', 'anger\nsadness'),
        (np.array([0.75, 0, 0, 0, np.nan, 1, 0]), 'attributes', '0.75 anger\nsadness'),
        (np.zeros(7), 'attributes', 'none'),
        (np.array([-0.5, np.nan, 0.25]), 'levels', 'anger -0.50\ndisgust 0.25'),
    ],
)
def test_labels_of_every_task_are_text(label, kind, text):
    names = EXPRESSIONS if label.ndim == 0 or len(label) == 7 else (EXPRESSIONS[0], 'contempt', 'disgust')
    assert describe_label(label, names, kind=kind) == text


def test_attributes_are_named_and_not_the_class_of_that_number(shared_data, monkeypatch):
    """AU6 stood below every image of class 1; CelebA's images, which have no class, were all of the last attribute."""
    table = preview.dataset.load_dataset
    names = ('AU1', 'AU2', 'AU6')

    def load(**options):
        data = table(**options | {'dir': str(shared_data / 'ck48')})
        count = len(data.splits['train'].labels)
        values = np.tile(np.array([1, 0, 1], np.float32), (count, 1))
        split = dataclasses.replace(data.splits['train'], attributes=values)
        return dataclasses.replace(data, splits=data.splits | {'train': split}, classes=names)

    shown = []
    monkeypatch.setattr(preview.dataset, 'load_dataset', load)
    monkeypatch.setattr(
        preview, 'describe_label', lambda label, names, kind: shown.append((*label.tolist(), kind)) or ''
    )
    config = default.get_config()
    config.model.update({'image_size': 48, 'channels': 1})
    config.data.update({'name': '', 'dir': str(shared_data / 'ck48')})
    preview.sheet(config, rows=2, draws=1, phase=0)
    assert shown == [(1, 0, 1, 'attributes')] * 4


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [({'phase': 2}, '--phase=2: the config has 2'), ({'phase': -1}, '--phase=-1'), ({'rows': 0}, '--rows=0')],
)
def test_mistakes_are_named(config, wrong, message):
    with pytest.raises(UserError, match=message):
        preview.sheet(config, **{'rows': 2, 'draws': 1, 'phase': 0} | wrong)


def test_the_command_writes_a_picture(shared_data, tmp_path, capsys):
    out = tmp_path / 'new' / 'sheet.png'
    faces = ['--config.data.name=', f'--config.data.dir={shared_data / "ck48"}', '--config.model.image_size=32']
    command = [sys.executable, '-m', 'fer_jax.preview_augmentation', '--config', 'configs/default.py', *faces]
    override = '--config.data.augment.erase_area=(0.1, 0.3)'
    subprocess.run([*command, override, f'--out={out}', '--rows=2', '--draws=1'], check=True, cwd=REPOSITORY)
    assert Image.open(out).size == (4 + 2 * 100, 4 + 2 * 124)
    assert preview.main([f'--out={out}']) == 2
    assert '--config is missing' in capsys.readouterr().err
