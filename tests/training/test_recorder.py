import json

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
