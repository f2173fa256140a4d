"""The cross_evaluate command."""

import json

import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax import cross_evaluate, evaluate
from fer_jax.data.imaging import codec
from fer_jax.evaluation import evaluate_runs


@pytest.mark.slow
def test_a_run_is_scored_on_other_sets(finished, faces, tmp_path, capsys):
    """On its own set as its test split was; on one of other names as a count of its predictions says."""
    workdir, results = finished
    other = tmp_path / 'other'
    for name, ours in (('Anger', 'anger'), ('joy', 'happy'), ('fear', None), ('surprised', 'surprise')):
        (other / name).mkdir(parents=True)
        chosen = sorted((faces / (ours or 'happy')).iterdir())
        for path in chosen if ours else chosen[:4]:
            pixels = np.asarray(Image.open(path)) ^ np.uint8(ours is not None)  # other bytes
            Image.fromarray(pixels).save(other / name / path.name)
    output = tmp_path / 'out' / 'matrix.jsonl'
    command = ['--workdir', str(workdir), '--data', str(faces), '--data', str(other), '--output', str(output)]
    assert cross_evaluate.main(command) == 0
    own, foreign = (json.loads(line) for line in output.read_text().splitlines())
    assert (own['n'], own['accuracy']) == (12, results['splits']['test']['accuracy'])
    assert own['left_out'] == {'trained on': 78, 'of other classes': 0, 'unreadable': 0}
    assert (foreign['n'], foreign['left_out']['of other classes']) == (90, 4)
    predictor, right = fer_jax.load(workdir), 0
    for name, ours in (('Anger', 'angry'), ('joy', 'happy'), ('surprised', 'surprise')):
        found = [codec.decode(path.read_bytes(), 32, 1, '') for path in (other / name).iterdir()]
        right += sum(predictor.classes[at] == ours for at in predictor(np.stack(found)).argmax(1))
    assert foreign['accuracy'] == right / 90 and foreign['classes'] == ['angry', 'happy', 'surprise']
    assert output.with_suffix('.png').stat().st_size > 1000
    found = evaluate_runs.evaluate(workdir, dataset=str(other))
    assert found['splits']['other']['accuracy'] == right / 90 and found['left_out']['of other classes'] == 4
    assert evaluate.main(['--workdir', str(workdir), '--data', str(other), '--tta', 'flip']) == 0
    assert '4 of other classes' in capsys.readouterr().out
    assert evaluate.main(['--workdir', str(workdir), '--tta', 'many']) == 2
    written = output.read_text()
    assert cross_evaluate.main(command) == 0 and output.read_text() == written
    assert (
        cross_evaluate.main([*command, '--data', 'nowhere']) == 2 and "'nowhere' is unknown" in capsys.readouterr().err
    )
    (other / 'joy' / 'broken.png').write_bytes(b'')
    assert cross_evaluate.main([*command, '--fresh']) == 2
    assert 'up to 1 images of a set could not be read' in capsys.readouterr().err
    assert json.loads(output.read_text().splitlines()[1])['accuracy'] == right / 90
    assert cross_evaluate.main(['--workdir', str(workdir), '--data', f'{faces}:dev', '--output', str(output)]) == 2
    assert "no split 'dev'; there are all" in capsys.readouterr().err
