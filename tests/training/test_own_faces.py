"""`fer-jax train --data DIR`: what is chosen, what a flag keeps, and what a run that goes on takes."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import own_faces as recipe
from fer_jax.config import own_faces, schema
from fer_jax.config.check import check_config, plain_config
from fer_jax.config.flags import checked_config, parse
from fer_jax.config.own_faces import Facts
from fer_jax.errors import UserError
from fer_jax.training.own_faces import settle

SMALL = Facts(213, 10, 7, None, True, ('resnet8_small', 48, 1), False)


def chosen(facts):
    return {path: value for choice in own_faces.choose(facts) for path, value in choice.fields.items()}


@pytest.mark.parametrize('images', [1, 100, 1000, 100_000])
@pytest.mark.parametrize('people', [None, 1, 2, 3, 29, 5000])
@pytest.mark.parametrize('lite0', [False, True])
def test_what_is_chosen_is_a_config_of_listed_fields_that_have_their_default(images, people, lite0):
    config = plain_config(recipe.get_config())
    fields = chosen(SMALL._replace(images=images, people=people, lite0=lite0))
    assert set(fields) <= set(own_faces.FIELDS) == set(config['auto'])
    for path, value in fields.items():
        field = schema.field_at(path)
        assert field is not None and (field.kind == 'str') == isinstance(value, str)
    check_config(config)


def test_fewer_images_have_more_epochs_and_few_people_are_tested_in_folds():
    few, many = chosen(SMALL), chosen(SMALL._replace(images=5000, people=500))
    some = chosen(SMALL._replace(images=1500, people=500))
    assert few['phases[1].epochs'] == 0 and few['model.head_inputs']  # frozen
    assert some['phases[1].epochs'] > many['phases[1].epochs'] and 'model.head_inputs' not in some
    assert few['data.folds'] == 5 and 'data.folds' not in many
    assert chosen(SMALL._replace(people=3))['data.folds'] == 3
    for facts in (SMALL._replace(people=2), SMALL._replace(people=None), SMALL._replace(own_train=150)):
        assert 'data.folds' not in chosen(facts)
    assert chosen(SMALL._replace(lite0=False))['model.weights'] == 'release'


@pytest.fixture
def faces(tmp_path):
    noise = np.random.default_rng(0)
    for index in range(24):
        path = tmp_path / 'faces' / ('happy', 'sad')[index % 2] / f'p{index % 8}_{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (8, 8), np.uint8)).save(path)
    return tmp_path / 'faces'


def settled(*flags, workdir=''):
    parse(['fer-jax train', *map(str, flags)])
    return settle(plain_config(checked_config()), workdir)


def test_a_folder_is_looked_at_and_flags_stay(faces, capsys):
    by_flag = settled('--data', faces, '--config.data.subject=p[0-9]', '--config.seed=1')
    said = capsys.readouterr().out
    assert 'chosen for 24 images, 8 people, 2 classes' in said and 'data.folds=5' in said
    assert by_flag == settled(
        '--config=own_faces',
        f'--config.data.dir={faces}',
        '--config.data.subject=p[0-9]',
        '--config.seed=1',
    )
    check_config(by_flag)
    (phase,) = by_flag['phases']
    assert (phase['epochs'], phase['cache_views'], phase['rates'][0][0]) == (own_faces.EPOCHS_OF_HEAD, 8, 'head/.*')
    (_, more) = settled('--data', faces, '--config.phases[1].epochs=3')['phases']
    assert more['epochs'] == 3 and more['rates'] == [['.*', 1.0]]
    assert by_flag['auto'] == [] and by_flag['data']['folds'] == 5
    other = settled('--config=quickstart', '--data', faces)
    assert other['data']['dir'] == str(faces) and other['data']['batch_size'] == 32  # that config, on this folder
    config = recipe.get_config()
    config.data.update({'name': '', 'dir': str(faces)})
    config.data.batch_size = 8
    assert settle(plain_config(config), '')['data']['batch_size'] == 8


def test_a_run_goes_on_with_what_was_chosen(faces, tmp_path, capsys):
    first = settled('--data', faces)
    first['data']['batch_size'] = 5
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(first))
    assert settled('--data', faces, workdir=tmp_path / 'run') == first
    assert 'goes on with the fields that were chosen' in capsys.readouterr().out


def test_a_folder_that_is_none_is_one_message():
    with pytest.raises(UserError, match="data.dir='absent' is not a folder"):
        settled('--data=absent')
