import json
import struct

import numpy as np

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
