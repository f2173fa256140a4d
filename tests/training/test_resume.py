"""Runs that stop, go on, and are started again."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fer_jax
from configs import default
from fer_jax.errors import UserError
from fer_jax.runs import data as run_data
from fer_jax.training import multi_step, phase_program, setup
from fer_jax.utils import checked_files
from fer_jax.utils.signals import Stopped
from tests.small_run import assert_same_model, config_of


@pytest.mark.parametrize('placement', ['device', pytest.param('stream', marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_ends_as_one_that_is_not(finished, faces, tmp_path, placement, monkeypatch):
    """SIGTERM after 2, then 5 (the end of phase 0), then 7 steps; bits, records and results are the same.

    The stopped run takes a step a program, the whole one several.
    """
    whole, results = finished
    config = config_of(faces)
    config.data.placement = placement
    from fer_jax.training import loop

    for stop_at in (2, 5, 7):
        taken = loop.Recorder.stepped

        def stepped(recorder, count, stop_at=stop_at, taken=taken):
            taken(recorder, count)
            if recorder._bar.n == stop_at * 16:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patched:
            patched.setattr(loop.Recorder, 'stepped', stepped)
            patched.setattr(multi_step, 'STOP_CHECK_SECONDS', 0.0)
            with pytest.raises(Stopped, match=f'stopped by SIGTERM after step {stop_at}'):
                fer_jax.train(config, tmp_path)
    assert fer_jax.train(config, tmp_path)['splits'] == results['splits']
    assert_same_model(whole, tmp_path)
    assert (tmp_path / 'metrics.jsonl').read_bytes() == (whole / 'metrics.jsonl').read_bytes()


@pytest.mark.slow
def test_what_muon_and_its_adam_remember_is_kept(faces, tmp_path):
    """A run that goes on ends in the bits of one that never stopped."""
    config, muon = config_of(faces), {'optimizer': 'muon', 'schedule': 'constant', 'weight_decay': 0.1}
    for workdir, epochs in ((tmp_path / 'whole', 2), (tmp_path / 'part', 1), (tmp_path / 'part', 2)):
        config.phases = (default.phase(epochs=epochs, **muon),)
        fer_jax.train(config, workdir)
    assert_same_model(tmp_path / 'whole', tmp_path / 'part')


@pytest.mark.parametrize('where', ['prepare', 'make_loader'])
def test_a_signal_before_a_phase_begins_stops_at_once(faces, tmp_path, where, monkeypatch):
    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError('not reached')

    monkeypatch.setattr(*((setup, where) if where == 'prepare' else (phase_program.PhaseProgram, where)), interrupted)
    with pytest.raises(Stopped, match='stopped by SIGTERM, nothing is lost'):
        fer_jax.train(config_of(faces), tmp_path)


def test_a_finished_run_started_again_scores_again_and_trains_no_more(finished, faces):
    workdir, results = finished
    before = (workdir / 'metrics.jsonl').read_bytes()
    assert fer_jax.train(config_of(faces), workdir) == results
    assert (workdir / 'metrics.jsonl').read_bytes() == before


def test_a_finished_run_trains_longer(finished, faces, tmp_path, capsys):
    workdir, results = finished
    shutil.copytree(workdir, tmp_path / 'run')
    config = config_of(faces)
    config.phases[1].epochs = 3
    longer = fer_jax.train(config, tmp_path / 'run')
    said = capsys.readouterr().out
    assert 'changed since this run began: phases[1].epochs: 2.0 -> 3.0' in said and 'resuming at step 13 of 17' in said
    assert [phase['step'] for phase in longer['phases']][0] == results['phases'][0]['step']
    before, after = ((path / 'metrics.jsonl').read_text() for path in (workdir, tmp_path / 'run'))
    assert after.startswith(before) and '"step": 17' in after.removeprefix(before)


def test_other_data_and_other_versions_are_noticed(finished, faces, tmp_path, capsys):
    workdir, _ = finished
    shutil.copytree(workdir, tmp_path / 'run')
    path = tmp_path / 'run' / 'environment.json'
    before = json.loads(path.read_text())
    before['versions']['jax'], before['data']['fingerprint'] = '0.1.0', '0' * 64
    checked_files.write_json(path, before)
    with pytest.raises(UserError, match='holds a run on other data.*--allow_other_data'):
        fer_jax.train(config_of(faces), tmp_path / 'run', allow_changes=True)
    assert json.loads(path.read_text()) == before
    fer_jax.train(config_of(faces), tmp_path / 'run', allow_other_data=True)
    assert 'began with other versions, jax 0.1.0 -> ' in capsys.readouterr().out
    assert json.loads(path.read_text())['earlier'] == [before]


def test_data_that_have_moved_are_the_same_data(finished, faces, tmp_path, capsys):
    """Their fingerprint decides, not their path; other images at the new path are refused."""
    workdir, results = finished
    shutil.copytree(workdir, tmp_path / 'run')
    moved = Path(shutil.copytree(faces, tmp_path / 'scratch' / 'of the job'))
    assert fer_jax.train(config_of(moved), tmp_path / 'run')['splits'] == results['splits']
    assert 'changed since this run began: data.dir: ' in capsys.readouterr().out
    assert json.loads((tmp_path / 'run' / 'config.json').read_text())['data']['dir'] == str(moved)
    kept, digests = run_data.image_digests(tmp_path / 'run'), run_data.image_digests(workdir)
    data = run_data.data_of_run(workdir)['primary']
    for role, split in data.splits.items():
        assert {row.tobytes() for row in kept[role]} == {row.tobytes() for row in digests[role]}
        assert {row.tobytes() for row in kept[role]} == {row.tobytes() for row in split.digests}
    scored = moved / data.splits['test'].ids[0]
    Image.fromarray(np.asarray(Image.open(scored)) ^ np.uint8(1)).save(scored)
    with pytest.raises(UserError, match='holds a run on other data'):
        fer_jax.train(config_of(moved), tmp_path / 'run', allow_changes=True)
    environment = tmp_path / 'run' / 'environment.json'
    environment.unlink()
    with pytest.raises(UserError, match=r'holds a run of another config; data\.dir: '):
        fer_jax.train(config_of(faces), tmp_path / 'run')


def test_a_checkpoint_of_another_model_or_class_list_is_refused(finished, faces, tmp_path):
    workdir, _ = finished
    config = config_of(faces)
    config.model.name = 'resnet50'
    with pytest.raises(UserError, match=r'another model: its name is resnet8_small, this run has resnet50'):
        fer_jax.train(config, workdir)
    (tmp_path / 'faces').mkdir()
    for name in ('happy', 'surprise'):
        (tmp_path / 'faces' / name).symlink_to(faces / name)
    with pytest.raises(UserError, match='its classes is primary: angry, happy, surprise, this run has primary: happy'):
        fer_jax.train(config_of(tmp_path / 'faces'), workdir)
