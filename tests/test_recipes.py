"""The recipes of configs/, by the numbers of the papers that they repeat, and the runs that they make at small size."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import fer_jax
from configs import default, fer2013_record, fer2013_speedrun, resnet18_attributes, vgg16_transfer, vggface_two_stage
from fer_jax.data import dataset
from fer_jax.data.sources import folder
from fer_jax.evaluation import evaluate_runs
from fer_jax.models.network import ModelSpec, build
from fer_jax.training import phases


def test_the_classic_transfer_recipe():
    config = vgg16_transfer.get_config()
    (phase,) = config.phases
    assert (config.model.name, config.model.weights, config.model.head) == ('vgg16', 'imagenet', 'mlp')
    assert (phase.optimizer, phase.learning_rate, phase.momentum, config.data.batch_size) == ('sgd', 0.001, 0.9, 128)
    assert phase.rates == default.HEAD_ONLY and config.checkpoint.select == 'validation/accuracy'


def test_source_and_target_are_learnt_together():
    config = vgg16_transfer.get_config('joint')
    source = config.joint.source
    assert (source.data.name, source.data.label, source.weight, source.head) == ('vggface2', 'subject', 1.0, '')
    assert dict(config.phases[0].rates)['block5/.*'] == 1.0
    with pytest.raises(ValueError, match="'both' is no form"):
        vgg16_transfer.get_config('both')


def test_the_attribute_recipe():
    config = resnet18_attributes.get_config()
    (phase,) = config.phases
    assert (phase.optimizer, phase.learning_rate, phase.epochs) == ('adam', 3e-4, 10)
    assert (phase.schedule, phase.step_epochs, phase.step_factor) == ('step', 5, 0.5)
    assert config.loss.name == 'binary_cross_entropy' and config.data.augment.erase and config.data.augment.crop


def test_the_two_stages_share_their_network():
    first, second = (vggface_two_stage.get_config(stage) for stage in ('identities', 'expression'))
    assert first.data.label == 'subject' and second.data.label == 'class' and second.loss.name == 'focal'
    same = {key: value for key, value in first.model.items() if key != 'weights'}
    assert same == {key: value for key, value in second.model.items() if key != 'weights'}
    assert second.phases[0].rates == default.HEAD_ONLY
    assert dict(second.phases[1].rates)['.*'] < 1
    with pytest.raises(ValueError, match=':identities or :expression'):
        vggface_two_stage.get_config('emotion')


@pytest.mark.slow
def test_attributes_are_learnt_and_told(tmp_path, monkeypatch):
    """Bright images have the first attribute, the second is unknown for half of them."""
    noise = np.random.default_rng(0)
    for name in ('happy', 'sad'):
        (tmp_path / 'faces' / name).mkdir(parents=True)
        for at in range(40):
            pixels = noise.integers(0, 60, (32, 32), np.uint8) + np.uint8(150 * (at % 2))
            Image.fromarray(pixels).save(tmp_path / 'faces' / name / f'S{at % 8}_{at:02d}.png')

    def open_table(**_):
        table = folder.scan(tmp_path / 'faces', subject='S[0-9]')
        bright = [int(name.split('_')[1][:2]) % 2 for name in table.ids]
        units = np.stack([bright, np.where(np.arange(80) % 2, bright, np.nan)], 1).astype(np.float32)
        return dataclasses.replace(table, targets={'units': units}, columns={'units': ('bright', 'AU2')})

    monkeypatch.setattr(dataset, 'open_table', open_table)
    config = resnet18_attributes.get_config()
    config.model.update({'image_size': 32, 'channels': 1})
    config.data.update({'annotation': 'units', 'batch_size': 16})
    config.loss.positive_weights = 'inverse'
    config.parallel.devices = 0
    config.phases = (default.phase(epochs=6, learning_rate=3e-3),)
    workdir = tmp_path / 'run'
    results = fer_jax.train(config, workdir)
    test = results['splits']['test']
    assert results['classes'] == ['bright', 'AU2'] and test['interval'] == 'by_subject'
    assert test['per_attribute']['bright']['accuracy'] > 0.9 and test['accuracy'] > 0.8
    assert test['per_attribute']['AU2']['n'] < test['n']
    assert (workdir / 'attributes_test.png').exists() and not (workdir / 'confusion_test.png').exists()
    assert evaluate_runs.evaluate(workdir)['splits']['test'] == test
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert all(0 <= record['accuracy'] <= 1 for record in records)
    with np.load(workdir / 'predictions.npz') as file:
        ids, logits = file['test/ids'], file['test/logits']
    images = np.stack([np.asarray(Image.open(tmp_path / 'faces' / name)) for name in ids])
    predictor = fer_jax.load(workdir)
    assert predictor.classes == ('bright', 'AU2')
    np.testing.assert_allclose(predictor(images), 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize('form', fer2013_speedrun.FORMS)
def test_a_race_ends_with_all_pixels_and_no_learning_rate(form):
    config = fer2013_speedrun.get_config(form)
    classes = {'primary': tuple('abcdefg')}
    network = build(ModelSpec(config.model.name, classes, config.model.image_size, channels=config.model.channels))
    sizes = {'examples': 28709, 'batch_size': config.data.batch_size}
    planned = phases.plan(json.loads(config.to_json())['phases'], network, augment=config.data.augment, **sizes)
    pixels = [phase.image_size for phase in planned]
    assert pixels == sorted(set(pixels)) and pixels[-1] == config.model.image_size
    rates = [float(phase.schedule(phase.last - phase.first - 1)) for phase in planned]
    assert rates[-1] < 1e-3 * config.phases[-1].learning_rate
    assert rates[:-1] == pytest.approx([phase.learning_rate for phase in config.phases[:-1]])
    assert (config.model.weights == 'imagenet') == (config.model.channels == 3)
    assert config.checkpoint.select == 'validation/accuracy'


def test_what_a_race_on_a_cpu_learns_fits_a_release():
    """8 MB, as float16."""
    for name, most in (('resnet8_small', 1.2e6), ('resnet12_small', 3e6)):
        network = build(ModelSpec(name, {'primary': tuple('abcdefg')}, 48, channels=1))
        assert list(network.stages) == ['stem', 'layer1', 'layer2', 'layer3', 'pool', 'head']
        assert sum(int(np.prod(leaf.shape)) for leaf in network.params.values()) < most


def test_the_record_selects_on_validation_and_keeps_other_labels_apart():
    ours, theirs = fer2013_record.get_config(), fer2013_record.get_config('ferplus')
    assert ours.checkpoint.select == theirs.checkpoint.select == 'validation/accuracy'
    assert (ours.data.name, theirs.data.name, theirs.data.target) == ('fer2013', 'ferplus', 'cross_entropy')
    with pytest.raises(ValueError, match="'affectnet' is no form"):
        fer2013_record.get_config('affectnet')
