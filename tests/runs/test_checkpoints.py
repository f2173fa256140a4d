"""Checkpoints that are damaged, unfinished, or of something else."""

import logging
import re
import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from fer_jax import checkpoints as fer_jax_checkpoints
from fer_jax.errors import UserError
from fer_jax.models.network import ModelSpec
from fer_jax.models.parameters import Variables
from fer_jax.runs import checkpoints, checksums
from fer_jax.runs.checkpoints import parse_select
from fer_jax.training import train_state
from fer_jax.training.train_state import FrozenState

SPEC = ModelSpec('resnet18', {'primary': ('a', 'b')}, 64)
TX = optax.adam(0.1)


def params(step: int) -> dict[str, np.ndarray]:
    return {'kernel': np.random.default_rng(step).normal(size=(64, 64)).astype(np.float32)}


def state(step: int) -> train_state.TrainState:
    return train_state.create(step, params(step), {'mean': np.full(3, step, np.float32)}, TX)


def target() -> tuple[dict, dict]:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return (
        {'kernel': jax.ShapeDtypeStruct((64, 64), 'float32', sharding=device)},
        {'mean': jax.ShapeDtypeStruct((3,), 'float32', sharding=device)},
    )


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Steps 3 (the best) and 5 (the newest) of 1 to 5."""
    workdir = tmp_path_factory.mktemp('run')
    store = checkpoints.Checkpoints(workdir, SPEC)
    for step, score in enumerate((0.5, 0.6, 0.9, 0.7, 0.2), 1):
        store.save(train_state.to_items(state(step), FrozenState({}, {})), score)
    store.wait()
    store.close()
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / 'run')


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob('*') if path.is_file())


def opened(workdir: Path, **options) -> checkpoints.Checkpoints:
    return checkpoints.Checkpoints(workdir, SPEC, **options)


def test_the_newest_and_the_best_are_kept_and_restored(workdir):
    folder = workdir / 'checkpoints'
    assert sorted(path.name for path in folder.iterdir()) == [
        '3', '3.manifest.json', '5', '5.manifest.json', 'SHA256SUMS', 'model.json',
    ]  # fmt: skip
    store = opened(workdir)
    assert (store.latest_step(), store.best_step()) == (5, 3)
    restored, stats = store.restore_model(3, Variables(*target()))
    assert np.array_equal(restored['kernel'], params(3)['kernel']) and stats['mean'][0] == 3
    entered = train_state.create(5, restored, stats, TX)
    item = store.restore_train(5, train_state.train_item(entered))
    assert train_state.with_item(entered, item).step == 5


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = np.random.default_rng(len(data)).integers(8 * len(data)) if data else 0
    if not data:
        data = bytearray(1)
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


def zero_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes()) or bytearray(b'x')
    data[:4096] = bytes(min(4096, len(data)))
    path.write_bytes(data)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if data else b'x')


@pytest.mark.parametrize('harm', [flip_a_bit, zero_a_page, truncate, Path.unlink])
def test_harm_to_any_file_is_found_and_the_newest_good_step_used(saved, tmp_path, harm, caplog):
    for number, path in enumerate(files(saved / 'checkpoints' / '5')):
        copy = shutil.copytree(saved, tmp_path / str(number))
        name = path.relative_to(saved / 'checkpoints' / '5')
        harm(copy / 'checkpoints' / '5' / name)
        caplog.clear()
        store = opened(copy)
        assert store.latest_step() == store.best_step() == 3, name
        assert f'/5 is left out: {name}' in caplog.text
        store.close()
        aside = list((copy / 'checkpoints' / 'set_aside').iterdir())
        assert len(aside) == 2 and all(path.name.startswith('5-') for path in aside)


@pytest.mark.parametrize(
    ('harm', 'reason'),
    [
        (lambda step: checksums.manifest_of(step).unlink(), 'it has no manifest'),
        (lambda step: checksums.manifest_of(step).write_text('{"'), 'its manifest cannot be read'),
        (lambda step: shutil.rmtree(step / 'train'), 'train/.* is missing'),
        (lambda step: (shutil.rmtree(step), step.mkdir()), 'is missing'),
        (lambda step: (step / 'more').write_text(''), 'more is not in its manifest'),
    ],
)
def test_a_step_that_is_not_whole_is_named(workdir, harm, reason, caplog):
    harm(workdir / 'checkpoints' / '5')
    store = opened(workdir, read_only=True)
    assert store.latest_step() == 3
    assert len(caplog.records) and re.search(f'/5 is left out: .*{reason}', caplog.text)
    assert (workdir / 'checkpoints' / '5').exists()  # a reader moves nothing


def test_training_goes_on_over_a_step_that_was_set_aside(workdir, caplog):
    caplog.set_level(logging.WARNING)
    for _ in range(checksums.MOST_QUARANTINED + 1):
        flip_a_bit(files(workdir / 'checkpoints' / '5' / 'model' / 'd')[0])
        store = opened(workdir)
        store.save(train_state.to_items(state(5), FrozenState({}, {})), 0.2)
        store.wait()
        assert store.latest_step() == 5
        store.close()
    aside = workdir / 'checkpoints' / 'set_aside'
    assert len([path for path in aside.iterdir() if path.is_dir()]) == checksums.MOST_QUARANTINED


def test_a_full_disk_is_one_message_and_the_step_before_is_whole(workdir):
    """A limit on the size of files fails in the writer's threads as a full disk does."""
    store = opened(workdir)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        store.save(train_state.to_items(state(6), FrozenState({}, {})), 0.95)
        with pytest.raises(UserError, match=r'cannot be written to .* GB are free there\. Earlier ones are whole'):
            store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store = opened(workdir)
    assert (store.latest_step(), store.best_step()) == (5, 3)
    store.save(train_state.to_items(state(6), FrozenState({}, {})), 0.95)
    store.close()
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir() if path.is_dir()) == ['6']


def test_a_folder_that_is_removed_under_the_run_is_named(workdir):
    store = opened(workdir)
    shutil.rmtree(workdir)
    with pytest.raises(UserError, match='checkpoints was removed, or its disk taken away'):
        store.save(train_state.to_items(state(6), FrozenState({}, {})), 0.95)
    store.close()


def test_where_the_best_step_is_damaged_the_best_of_the_others_is_used(workdir, caplog):
    flip_a_bit(files(workdir / 'checkpoints' / '3' / 'model' / 'd')[0])
    store = opened(workdir)
    assert (store.latest_step(), store.best_step()) == (5, 5)
    assert '/3 is left out: model/d/' in caplog.text


def test_an_empty_or_foreign_folder_is_no_step(workdir):
    for name in ('9', '10.orbax-checkpoint-tmp-1', 'notes'):
        (workdir / 'checkpoints' / name).mkdir()
    assert opened(workdir).latest_step() == 5


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'dtype': 'bfloat16'}, r'kernel is float32\[64, 64\], this run has bfloat16\[64, 64\]'),
        ({'shape': (64, 32)}, r'kernel is float32\[64, 64\], this run has float32\[64, 32\]'),
        ({'name': 'other'}, r'kernel is float32\[64, 64\], this run has no such leaf'),
    ],
)
def test_another_type_shape_or_structure_is_refused(saved, change, said):
    wanted, stats = target()
    leaf = wanted.pop('kernel')
    fields = {'shape': leaf.shape, 'dtype': leaf.dtype, 'sharding': leaf.sharding}
    name = change.get('name', 'kernel')
    fields |= {key: value for key, value in change.items() if key != 'name'}
    wanted[name] = jax.ShapeDtypeStruct(**fields)
    with pytest.raises(UserError, match=f'is of another configuration: params/{said}'):
        opened(saved, read_only=True).restore_model(5, Variables(wanted, stats))


def test_equal_bits_have_equal_digests_and_others_do_not(saved, tmp_path, capsys):
    changed = params(5)
    changed['kernel'][3, 4] = np.nextafter(changed['kernel'][3, 4], np.float32(1))
    digests = []
    for name, one in (
        ('again', state(5)),
        ('changed', train_state.create(5, changed, {'mean': np.full(3, 5, np.float32)}, TX)),
    ):
        store = checkpoints.Checkpoints(tmp_path / name, SPEC)
        store.save(train_state.to_items(one, FrozenState({}, {})), 0.2)
        store.close()
        digests.append(checkpoints.digest(tmp_path / name / 'checkpoints' / '5'))
    assert checkpoints.digest(saved / 'checkpoints' / '5') == digests[0] != digests[1]
    assert fer_jax_checkpoints.main([str(tmp_path / 'again'), '--digest']) == 0
    assert capsys.readouterr().out.endswith(f'verified  {digests[0]}\n')


def test_the_command_lists_and_verifies(workdir, capsys):
    assert fer_jax_checkpoints.main([str(workdir)]) == 0
    assert [line.split()[0::3] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ['3', 'verified'],
        ['5', 'verified'],
    ]
    flip_a_bit(files(workdir / 'checkpoints' / '3' / 'model' / 'd')[0])
    assert fer_jax_checkpoints.main([str(workdir)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert '0.9000  model/d/' in lines[1] and lines[1].endswith('is not what its manifest says')
    assert fer_jax_checkpoints.main([str(workdir / 'absent')]) == 2


def test_a_selection_on_the_test_split_is_refused():
    assert parse_select('validation/nll') == ('validation', 'nll')
    for select, message in (
        ('test/accuracy', 'would choose the checkpoint on the test split.*choose validation/accuracy'),
        ('train/accuracy', 'expected validation/ and one of accuracy, balanced_accuracy'),
        ('validation/loss', 'expected validation/ and one of accuracy, balanced_accuracy'),
    ):
        with pytest.raises(UserError, match=message):
            parse_select(select)
