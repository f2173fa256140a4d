"""The group_faces command."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fer_jax import group_faces
from fer_jax.data.imaging import codec
from fer_jax.data.sources import manifest
from fer_jax.errors import UserError
from fer_jax.models.network import build
from fer_jax.models.parameters import Variables
from fer_jax.runs import model_file
from tests.lazy import lazy
from tests.small_run import restored

vq = lazy('scipy.cluster.vq')


@pytest.mark.slow
def test_faces_are_grouped_by_what_a_run_makes_of_them(finished, faces, tmp_path, capsys, monkeypatch):
    """Every image in one group, nearest to the mean of its own; the largest group first; the same again."""
    workdir, _ = finished
    command = ['--workdir', str(workdir), '--data', str(faces), '--groups', '4']
    assert group_faces.main([*command, '--output', str(tmp_path / 'one')]) == 0
    assert group_faces.main([*command, '--output', str(tmp_path / 'two')]) == 0
    table = manifest.read_manifest(tmp_path / 'one' / 'groups.csv')
    assert (tmp_path / 'two' / 'groups.csv').read_text() == (tmp_path / 'one' / 'groups.csv').read_text()
    sizes = np.bincount(table.labels, minlength=4)
    assert sizes.sum() == 90 and table.classes == tuple(f'group-0{number}' for number in range(4))
    assert list(sizes) == sorted(sizes, reverse=True)
    spec, model = model_file.read_spec(workdir), restored(workdir, best=True)
    network = build(spec)
    looks = np.stack([codec.decode(Path(name).read_bytes(), 32, 1, '') for name in table.ids])
    entered = network.forward(Variables(*model.values()), network.normalise(looks.astype(np.float32)))[2]
    rows = np.asarray(entered) / np.linalg.norm(entered, axis=1, keepdims=True)
    means = np.stack([rows[table.labels == number].mean(0) for number in range(4)])
    nearest = np.linalg.norm(rows[:, None] - means, axis=-1).argmin(1)
    assert np.mean(nearest == table.labels) > 0.95
    broken = Path(shutil.copytree(faces, tmp_path / 'broken'))
    for path, content in zip(sorted(broken.rglob('*.png'))[:2], (b'', b'no image'), strict=True):
        path.write_bytes(content)
    command[3] = str(broken)
    capsys.readouterr()
    assert group_faces.main([*command, '--output', str(tmp_path / 'three')]) == 2
    assert 'left out: anger/S010_004_00000017.png (an empty file)' in capsys.readouterr().err
    assert len(manifest.read_manifest(tmp_path / 'three' / 'groups.csv')) == 88
    assert all((tmp_path / 'one' / f'{name}.png').stat().st_size > 1000 for name in table.classes)
    assert group_faces.main([*command[:4], '--groups', '91', '--output', str(tmp_path)]) == 2
    assert '--groups=91' in capsys.readouterr().err
    twice = np.repeat(np.eye(2, dtype=np.float32), 9, axis=0)
    with pytest.raises(UserError, match='--groups=3: a group stays empty'):
        group_faces.grouped(twice, 3, 0)

    def empty(*_, **__):
        raise vq.ClusterError('One of the clusters is empty')

    monkeypatch.setattr('scipy.cluster.vq.kmeans2', empty)
    with pytest.raises(UserError, match='--groups=2: a group stays empty .*give a smaller number'):
        group_faces.grouped(twice, 2, 0)
