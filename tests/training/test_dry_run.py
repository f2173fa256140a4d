"""What `--dry_run` foretells beside what a run then takes, and what a run says of its time."""

import re

import pytest
from PIL import Image

import fer_jax
from configs import default
from fer_jax import pretrained
from fer_jax.data.loading import loader
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.models.network import ModelSpec, build
from fer_jax.runs import checksums, metrics_log

COUNT, SIDE = 120, 16


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Two phases of a small network on 120 grey images of 16 px, half of them a class."""
    root = tmp_path_factory.mktemp('faces')
    for label, name in enumerate(('happy', 'sad')):
        (root / name).mkdir()
        for index in range(COUNT // 2):
            Image.new('L', (SIDE, SIDE), 100 * label + index).save(root / name / f'{index}.png')
    config = default.get_config()
    config.model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': SIDE, 'channels': 1})
    config.data.update({'name': '', 'dir': str(root), 'batch_size': 4})
    config.log_every = 7
    frozen = default.phase(rates=default.HEAD_ONLY, cache_views=1)
    config.phases = (frozen, default.phase(optimizer='adamw', ema=0.9))
    return config


@pytest.mark.slow
def test_a_dry_run_foretells_disk_and_memory(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'cache'))
    needs = fer_jax.train(config, tmp_path / 'run', dry_run=True)
    said = capsys.readouterr().out
    assert not (tmp_path / 'run').exists()
    assert f'in {config.data.dir}; decoded train 0.0 MB, validation' in said and 'weights: none' in said
    fer_jax.train(config, tmp_path / 'run', profile=True)
    largest = max(checksums.size(folder) for folder in (tmp_path / 'run' / 'checkpoints').iterdir() if folder.is_dir())
    network = build(ModelSpec('resnet8_small', {PRIMARY: ('happy', 'sad')}, SIDE, channels=1))
    floats = sum(leaf.size for tree in (network.params, network.batch_stats) for leaf in tree.values())
    # averages, values and two moments of all parameters; what Orbax adds to them is small
    assert needs['bytes_on_disk']['checkpoint'] == pytest.approx(16 * floats, rel=0.02)
    assert largest == pytest.approx(needs['bytes_on_disk']['checkpoint'], rel=0.25)
    cached = sum(file.stat().st_size for file in (tmp_path / 'cache' / 'features').glob('*.bin'))
    assert cached >= needs['bytes_on_disk']['features'] > cached / 2  # those of the validation split lie there too
    assert needs['bytes_per_device'][1] > 16 * floats + COUNT * SIDE * SIDE

    times = metrics_log.read_metrics(tmp_path / 'run' / 'timing.jsonl')
    trained = [one for one in times if one['event'] == 'train']
    for one in trained:
        assert one['data'] + one['compute'] + one['checkpoint'] == pytest.approx(one['seconds'], abs=2e-3)
        assert min(one['data'], one['compute'], one['checkpoint']) >= 0
    assert any(one['checkpoint'] > 0 for one in trained) and all(one['data'] > 0 for one in trained)
    written = list((tmp_path / 'run' / 'profile').rglob('*.trace.json.gz'))
    assert len(written) == 1
    said = ''.join(capsys.readouterr())
    assert re.search(r'profile: steps \d+ to \d+ of', said) and 'https://ui.perfetto.dev' in said


def test_what_does_not_fit_is_said_before_it_is_queued(config, monkeypatch):
    monkeypatch.setattr(loader, 'free_memory', lambda mesh: 1000)
    config = config.copy_and_resolve_references()
    config.data.placement = 'device'
    with pytest.raises(UserError, match=r'phase 0 needs .* GB are free; lower data.batch_size=4 .*accumulate'):
        fer_jax.train(config, dry_run=True)


def test_weights_are_named_with_their_place(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path))
    config = config.copy_and_resolve_references()
    config.phases = config.phases[:1]
    config.phases[0].cache_views = 0
    config.model.weights = 'imagenet'
    network = build(ModelSpec('resnet8_small', {PRIMARY: ('happy', 'sad')}, SIDE, channels=1))
    params, stats = network.init(0)
    preprocessing = pretrained.Preprocessing((0.5,), (0.5,))
    file = pretrained.cached_file('resnet8_small', tmp_path)
    file.parent.mkdir()
    pretrained.save(file, pretrained.Weights('resnet8_small', params, stats, preprocessing, {}))
    fer_jax.train(config, dry_run=True)
    assert f'weights: present, {file}, ' in capsys.readouterr().out
