"""The export command, back to the source framework."""

import numpy as np
import pytest

from fer_jax import export, pretrained
from tests.small_run import restored


@pytest.mark.slow
def test_a_run_goes_back_to_torchvision(of_resnet18, tmp_path, capsys):
    """As float32 tensors that torchvision's network takes strictly; in again it is the same to the bit."""
    output = tmp_path / 'resnet18.safetensors'
    command = ['--workdir', str(of_resnet18), '--output', str(output)]
    assert export.main([*command, '--format', 'torchvision']) == 0
    assert 'classes  angry, happy, surprise\nimages   grey, 32 px' in capsys.readouterr().out
    again = pretrained.convert_file(output, 'resnet18', source='x', licence='none')
    source = restored(of_resnet18, best=True)
    for path, leaf in (source['params'] | source['stats']).items():
        np.testing.assert_array_equal((again.params | again.stats)[path], leaf)
    assert export.main([*command, '--format', 'keras']) == 2
    said = capsys.readouterr().err
    assert 'keras is not a form of resnet18; choose onnx, stablehlo, torchvision, safetensors' in said
    assert export.main([*command, '--format', 'safetensors']) == 0
    own = pretrained.load(output, 'resnet18')
    assert own.preprocessing.size == 32 and own.metadata['classes'] == '3'
    assert export.main(['--workdir', str(tmp_path), '--output', str(output), '--format', 'safetensors']) == 2
    (tmp_path / 'there.safetensors').mkdir()
    for wrong, said in (('there.safetensors', 'cannot be written'), ('README', 'has no ending; give a file such as')):
        command[-1] = str(tmp_path / wrong)
        assert export.main([*command, '--format', 'torchvision']) == 2
        assert said in capsys.readouterr().err
