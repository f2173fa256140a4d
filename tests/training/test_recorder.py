import json
import struct

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.runs.metrics_log import read_metrics
from fer_jax.training.recorder import Recorder


def write(workdir, steps, start=0):
    recorder = Recorder(workdir, step=start, total=10, batch_size=4)
    for step in steps:
        recorder.stepped(1)
        recorder.metrics(step, step / 5, 0, 'train', {'loss': 1 / step})
        recorder.rate(step)
    recorder.close()


def test_a_resumed_run_writes_the_file_of_an_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    for folder in (whole, parts):
        folder.mkdir()
    write(whole, range(1, 11))
    write(parts, range(1, 8))
    with (parts / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 8, "los')  # a kill in the middle of a line
    write(parts, range(6, 11), start=5)
    assert (parts / 'metrics.jsonl').read_bytes() == (whole / 'metrics.jsonl').read_bytes()
    assert [record['step'] for record in read_metrics(parts / 'timing.jsonl')] == list(range(1, 11))
    assert all('seconds' not in json.loads(line) for line in (whole / 'metrics.jsonl').read_text().splitlines())


@pytest.mark.parametrize(
    'harm', [lambda data: data.replace(b'0.5', b'0.7'), lambda data: data[: len(data) // 2], lambda data: b'']
)
def test_records_that_are_not_those_of_the_checkpoint_are_refused(tmp_path, harm, caplog):
    recorder = Recorder(tmp_path, step=0, total=10, batch_size=4)
    for step in range(1, 5):
        recorder.metrics(step, step / 5, 0, 'train', {'loss': 1 / step})
    history, path = recorder.seal_history(), tmp_path / 'metrics.jsonl'
    recorder.metrics(5, 1, 0, 'train', {'loss': 0.2})
    assert [record['step'] for record in recorder.history(4)] == [1, 2, 3, 4]
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    with pytest.raises(UserError, match=r'metrics\.jsonl is damaged: something else has changed it'):
        recorder.history(4)
    recorder.close()
    with pytest.raises(UserError, match=r'metrics\.jsonl is damaged: its records up to step 4 are not those'):
        Recorder(tmp_path, step=4, total=10, batch_size=4, history=history)
    path.write_bytes(whole)
    Recorder(tmp_path, step=4, total=10, batch_size=4, history=history).close()
    assert len(read_metrics(path)) == 4
    path.unlink()
    Recorder(tmp_path, step=4, total=10, batch_size=4, history=history).close()
    assert 'goes on without its records up to step 4' in caplog.text


def board(workdir):
    """tag -> the values of all event files, a scalar or ('image', height, width)."""
    from tensorboardX.proto import event_pb2

    values = {}
    for path in sorted((workdir / 'tensorboard').iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from('<Q', data, place)  # and its checksum of 4 bytes; one more behind the record
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                image = ('image', value.image.height, value.image.width)
                values.setdefault(value.tag, []).append(image if value.HasField('image') else value.simple_value)
    return values


def test_tensorboard_has_the_losses_the_test_scores_and_pictures(finished):
    workdir, results = finished
    values = board(workdir)
    records = read_metrics(workdir / 'metrics.jsonl')
    losses = [record['nll'] for record in records if record['split'] == 'validation']
    np.testing.assert_allclose(values['validation/loss'], losses, rtol=1e-6)
    test = results['splits']['test']
    np.testing.assert_allclose(values['test/accuracy'], [test['accuracy']])
    np.testing.assert_allclose(values['test/loss'], [test['nll']])
    for tag in ('confusion/test', 'confusion/validation', 'train/samples'):
        ((kind, height, width),) = values[tag]
        assert kind == 'image' and min(height, width) > 300
    assert 'validation/nll' not in values
