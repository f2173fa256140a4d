"""What a run has seen of another set, and which pairs of a matrix stay."""

import json

import pytest
from PIL import Image

from configs import default
from fer_jax import cross_evaluate
from fer_jax.data import dataset
from fer_jax.errors import UserError
from fer_jax.evaluation import cross_dataset
from fer_jax.models.network import ModelSpec


@pytest.fixture
def run(tmp_path):
    """Makes the folder of a run on 20 images of its own of two classes, and says the digests of those that it saw."""

    def made(name, *, images=True, weights='scratch', teachers=()):
        for label, shade in (('happy', 0), ('sad', 100)):
            (tmp_path / f'{name} faces' / label).mkdir(parents=True)
            for at in range(20) if images else ():
                image = Image.new('L', (8, 8), shade + at)
                image.putpixel((0, 0), sum(map(ord, name)) % 256)
                image.save(tmp_path / f'{name} faces' / label / f'{at}.png')
        config = default.get_config()
        config.model.weights = str(weights)
        config.data.update({'name': '', 'dir': str(tmp_path / f'{name} faces')})
        config.distil.teachers = tuple(map(str, teachers))
        spec = ModelSpec('resnet8_small', {'primary': ('happy', 'sad')}, 8, channels=1, mean=(0.5,), std=(0.25,))
        (tmp_path / name / 'checkpoints').mkdir(parents=True)
        (tmp_path / name / 'checkpoints' / 'model.json').write_text(spec.to_json())
        (tmp_path / name / 'config.json').write_text(json.dumps(json.loads(config.to_json())))
        return tmp_path / name

    return made


def test_what_it_learnt_from_has_seen_counts_as_seen(run, capsys):
    """The weights that it started from, a teacher's, theirs in turn, and itself again; 34 of 40 images each."""
    first, teacher = run('first'), run('teacher')
    second = run('second', weights=first, teachers=(teacher,))
    third = run('third', weights=second, teachers=(second,))
    alone = [cross_dataset.trained_on(one) for one in (first, teacher)]
    assert [len(one) for one in alone] == [34, 34]
    found = cross_dataset.trained_on(third)
    assert len(found) == 4 * 34 and alone[0] | alone[1] < found
    config = json.loads((first / 'config.json').read_text())
    (first / 'config.json').write_text(json.dumps(config | {'model': config['model'] | {'weights': str(third)}}))
    assert cross_dataset.trained_on(first) == found == cross_dataset.trained_on(third)
    assert capsys.readouterr().out == ''


def test_what_cannot_be_known_is_told(run, capsys):
    lost = run('lost', images=False)
    told = run('told', weights='runs/gone', teachers=(lost,))
    assert len(cross_dataset.trained_on(told)) == 34
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "learnt from 'runs/gone', which is no run here" in lines[0]
    assert f'learnt from {lost}, whose images cannot be left out' in lines[1]
    seen, (line,) = cross_dataset.seen_images(lost)
    assert not seen and 'lost: its training images cannot be left out' in line and 'has no images' in line
    assert len(cross_dataset.trained_on(run('from elsewhere', weights='imagenet'))) == 34
    assert capsys.readouterr().out == ''


def test_a_pair_that_cannot_be_scored_ends_no_matrix(tmp_path, monkeypatch, capsys):
    """Nor are rows lost that are further down when a rerun stops."""

    def score_unseen(predictor, table, seen):
        if table == 'odd':
            raise UserError('fewer than two are the same')
        if table == 'stop':
            raise KeyboardInterrupt
        scores = {'n': 9, 'accuracy': 0.5, 'accuracy_ci95': [0.4, 0.6], 'interval': 'wilson'}
        left = {'trained on': 0, 'of other classes': 0}
        return scores | {'balanced_accuracy': 0.5, 'macro_f1': 0.5, 'classes': ['a', 'b'], 'left_out': left}

    monkeypatch.setattr(dataset, 'open_split', lambda name: name)
    monkeypatch.setattr(cross_dataset, 'trained_on', lambda workdir: set())
    monkeypatch.setattr(cross_dataset, 'score_unseen', score_unseen)
    monkeypatch.setattr(cross_evaluate.fer_jax, 'load', lambda workdir: type('Loaded', (), {'step': 7}))
    output = tmp_path / 'matrix.jsonl'
    command = ['--workdir', 'run', '--output', str(output)]
    assert cross_evaluate.main([*command, '--data', 'odd', '--data', 'one', '--data', 'two']) == 0
    assert 'run on odd is left out: fewer than two are the same' in capsys.readouterr().out
    written = output.read_text()
    assert [json.loads(line)['data'] for line in written.splitlines()] == ['one', 'two']
    assert cross_evaluate.main([*command, '--data', 'one', '--fresh']) == 0 and output.read_text() == written
    with pytest.raises(KeyboardInterrupt):
        cross_evaluate.main([*command, '--data', 'one', '--data', 'stop', '--data', 'two', '--fresh'])
    assert output.read_text() == written
    assert cross_evaluate.main(['--workdir', 'run', '--output', str(tmp_path / 'new.jsonl'), '--data', 'odd']) == 2
