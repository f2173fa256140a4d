"""The loop over phases and steps: train, record, evaluate, save."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from fer_jax.data.augmentation.augment import Augment
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes, sharding
from fer_jax.distributed.stop_consensus import StopConsensus
from fer_jax.evaluation import score_logits, summary
from fer_jax.evaluation.network_scorer import NetworkScorer
from fer_jax.models.parameters import Flat
from fer_jax.runs.checkpoints import SELECTABLE, Checkpoints
from fer_jax.training import nonfinite, train_state
from fer_jax.training.multi_step import StepsPerCall
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.training.phases import Phase
from fer_jax.training.recorder import Log, Recorder
from fer_jax.training.run import Run
from fer_jax.training.train_state import FrozenState, TrainState
from fer_jax.utils import checked_files
from fer_jax.utils.signals import Stopped, StopRequest

Scorers = Mapping[str, NetworkScorer]
OnEvaluation = Callable[[dict[str, Any]], Any]
RECORDED = ('accuracy', 'balanced_accuracy', 'macro_f1', 'nll')


@dataclass(frozen=True)
class Session:
    """The objects that a run reads from and writes to while it trains.

    Attributes:
      on_evaluation: called with the record of each evaluation; True ends the training. Or None.
    """

    store: Checkpoints
    scorers: Scorers
    recorder: Recorder
    stop: StopRequest
    on_evaluation: OnEvaluation | None = None


def train_phases(
    run: Run,
    workdir: Path,
    store: Checkpoints,
    scorers: Scorers,
    stop: StopRequest,
    *,
    profile: bool = False,
    on_evaluation: OnEvaluation | None = None,
    log: Log | None = None,
) -> list[dict[str, Any]]:
    """Trains from the newest checkpoint, or from step 0, to the end of the last phase or until `on_evaluation` is True.

    Args:
      on_evaluation: see `Session`.
      log: see `Recorder`.

    Returns:
      The records of metrics.jsonl.
    """
    step, total = store.latest_step() or 0, run.phases[-1].last
    if step < total and processes.is_main_process():
        checked_files.remove_file(workdir / 'results.json')  # those of a shorter run
    if step:
        longer = f'; to train longer raise phases[{run.phases[-1].index}].epochs' if step >= total else ''
        print(f'resuming at step {step} of {total}{longer}')
        variables = store.restore_model(step, run.network.abstract(run.replicated))
    else:
        variables = run.initial()
    history = store.history_sha256(step) if step and processes.is_main_process() else ''
    recorder = Recorder(
        workdir, step=step, total=total, batch_size=run.batch_size, history=history, profile=profile, log=log
    )
    session = Session(store, scorers, recorder, stop, on_evaluation)
    ema: dict[str, Flat] = {}
    try:
        for phase in run.phases:
            if step > phase.last:
                continue
            program = PhaseProgram(run, phase)
            state, fixed = program.init_state(max(step, phase.first), variables, ema)
            if step > phase.first:
                item = store.restore_train(step, train_state.train_item(state))
                state = train_state.with_item(state, item)
            state, ended = train_phase(program, state, fixed, session)
            if ended:
                break
            variables, ema, step = train_state.all_variables(state, fixed), state.ema, phase.last
        store.wait()
        return recorder.history(total)
    finally:
        recorder.close()


def train_phase(
    program: PhaseProgram, state: TrainState, fixed: FrozenState, session: Session
) -> tuple[TrainState, bool]:
    """Continues a phase up to its last step, or until its validation scores stall or `on_evaluation` ends the training.

    Returns:
      The state, and whether `on_evaluation` ended the training.

    Raises:
      Stopped: the run was asked to stop; the state is saved.
    """
    run, phase, recorder = program.run, program.phase, session.recorder
    for scorer in session.scorers.values():
        scorer.forget_features()
    if phase.features and phase.features.views == 1 and phase.augment != Augment():
        print(f'phase {phase.index} trains on plain images: cache_views=1 keeps no augmented view')
    loader, take_steps = program.make_loader(state, fixed), program.step_function()
    every = run.config['log_every']
    pace = StepsPerCall(features=program.cached, last=phase.last, ends=run.evaluations, every=every)
    step = int(state.step)
    scores = past_scores(program, step, recorder)
    consensus = StopConsensus(run.mesh, session.stop)
    compiled = ended = False
    if step < phase.last:
        recorder.say(f'phase {phase.index}: steps {step + 1:,} to {phase.last:,}; compiling the first takes a while')
    with session.stop.waiting():
        while step < phase.last:
            if phase.stalled(scores):
                enough = f'{phase.stop_after} evaluations brought no better {run.select[1]}'
                recorder.say(f'phase {phase.index} ends early: {enough}')
                break
            count = pace.count(step)
            with jax.profiler.StepTraceAnnotation('train', step_num=step):
                with recorder.timed('data'):
                    batch = pace.batch(loader, step, count)
                with recorder.status('compiling') if not compiled else contextlib.nullcontext():
                    state = take_steps(state, fixed, loader.device_data, *batch)
                compiled = True
                pace.took(count, state.step)
            step += count
            recorder.stepped(count)
            recorder.trace(count, state.step)
            if step % every == 0 or step in run.evaluations:
                state = record(run, phase, state, step, recorder)
            if step in run.evaluations:
                state, values = score_and_save(program, state, fixed, step, session, scores)
                ended = session.on_evaluation is not None and bool(session.on_evaluation(values))
                if ended:
                    recorder.say(f'on_evaluation ends the training after step {step}')
                    break
            if consensus.after_step():
                save_and_stop(program, state, fixed, step, session)
        if consensus.at_end():
            session.stop.stop()
        processes.step_finished(more=False)
    return state, ended


def past_scores(program: PhaseProgram, step: int, recorder: Recorder) -> list[float]:
    """Reads the validation scores of the phase up to `step`, negated where a smaller score is better."""
    role, metric = program.run.select
    place = (role, program.phase.index)
    entries = [entry for entry in recorder.history(step) if (entry['split'], entry['phase']) == place]
    return [sign_of(metric) * entry[metric] for entry in entries]


def sign_of(metric: str) -> int:
    """Returns 1 where a larger score is better, and -1 where a smaller one is."""
    return 1 if SELECTABLE[metric] else -1


def score_and_save(
    program: PhaseProgram, state: TrainState, fixed: FrozenState, step: int, session: Session, scores: list[float]
) -> tuple[TrainState, dict[str, Any]]:
    """Evaluates the state, appends the score to `scores`, saves a checkpoint and updates the learning-rate scale.

    Returns:
      The state, and the record of the evaluation.
    """
    run = program.run
    processes.step_finished(more=False)
    values = evaluate(program, state, fixed, step, session)
    value = values[run.select[1]]
    scores.append(sign_of(run.select[1]) * value)
    state = state._replace(scale=sharding.put(np.float32(program.phase.scale(scores)), run.replicated))
    with session.recorder.timed('checkpoint'):
        session.store.save(train_state.to_items(state, fixed), value, session.recorder.seal_history())
    return state, values


def save_and_stop(
    program: PhaseProgram, state: TrainState, fixed: FrozenState, step: int, session: Session
) -> NoReturn:
    """Saves a checkpoint after a request to stop, and stops the run.

    Raises:
      Stopped: always.
    """
    processes.step_finished(more=False)
    nonfinite.check_finite(program.run, program.phase, state, session.recorder.workdir)
    session.store.save(train_state.to_items(state, fixed), history=session.recorder.seal_history())
    session.store.wait()
    raise Stopped(f'stopped by {session.stop.whom} after step {step}, saved; the same command with --workdir goes on')


def record(run: Run, phase: Phase, state: TrainState, step: int, recorder: Recorder) -> TrainState:
    """Writes the mean values over the steps since the last record, and returns the state with its sums reset to 0."""
    nonfinite.check_finite(run, phase, state, recorder.workdir)
    sums = {name: float(value) for name, value in jax.device_get(state.sums).items()}
    rate = float(phase.schedule(step - 1 - phase.first)) * float(state.scale)
    epoch = step * run.batch_size / run.examples
    values: dict[str, Any] = {'learning_rate': rate}
    if sums['steps']:  # some were kept
        for name, task in run.tasks.items():
            prefix = '' if name == PRIMARY else f'{name}/'
            values[f'{prefix}loss'] = sums[f'{name}/loss'] / sums['steps']
            if task.objective.hits is not None:
                values[f'{prefix}accuracy'] = sums[f'{name}/correct'] / sums[f'{name}/examples']
        values['gradient_norm'] = sums['gradient_norm'] / sums['steps']
    if skipped := int(state.health['skipped']):
        values['skipped'] = skipped
    recorder.metrics(step, epoch, phase.index, 'train', values)
    shown = {'loss': f'{values["loss"]:.3f}', 'acc': f'{values["accuracy"]:.1%}'} if sums['steps'] else {}
    shown |= {'skipped': str(skipped)} if skipped else {}
    recorder.rate(step, **shown, lr=f'{rate:.1e}', epoch=f'{epoch:.1f}')
    return state._replace(sums=sharding.put(train_state.zero_sums(run.tasks), run.replicated))


def evaluate(
    program: PhaseProgram, state: TrainState, fixed: FrozenState, step: int, session: Session
) -> dict[str, Any]:
    """Scores the selecting split of every task, and records and returns the scores.

    Returns:
      {'step', 'epoch', 'phase', 'split', 'best', score: value}; 'best' is the record of the best evaluation so far.
    """
    run, phase, recorder = program.run, program.phase, session.recorder
    role, metric = run.select
    begun = time.perf_counter()
    variables = train_state.eval_variables(state, fixed)
    evaluations: dict[str, dict[str, Any]] = {}
    with recorder.status('evaluating'):
        for name, scorer in session.scorers.items():
            if role in run.tasks[name].data.splits:
                evaluations[name] = scorer.score(role, variables, start=program.start)[scorer.named(role)]
    recorder.took(step, 'evaluate', time.perf_counter() - begun)
    epoch, scores = run.evaluations[step], evaluations.pop(PRIMARY)
    values = {name: scores[name] for name in (*RECORDED, 'accuracy_ci95')}
    for task, other in evaluations.items():
        values |= {f'{task}/{name}': other[name] for name in (*RECORDED, *score_logits.OF_LEVELS) if name in other}
    recorder.metrics(step, epoch, phase.index, role, values)
    past = [entry for entry in recorder.history(step) if entry['split'] == role and math.isfinite(entry[metric])]
    best = max(past, key=lambda entry: (sign_of(metric) * entry[metric], entry['step']), default=None)
    record = {'step': step, 'epoch': epoch, 'phase': phase.index, 'split': role, 'best': best, **values}
    recorder.say(
        f'phase {phase.index}, epoch {epoch:g}: {role} accuracy '
        f'{summary.share(scores["accuracy"], scores["accuracy_ci95"])}, '
        f'macro F1 {scores["macro_f1"]:.3f}'
        + ''.join(f'; {task} {summary.headline(other)}' for task, other in evaluations.items())
        + describe_best(best, step, metric)
    )
    return record


def describe_best(best: Mapping[str, Any] | None, step: int, metric: str) -> str:
    """Returns '; best so far' for the evaluation of `step`, with the score and the epoch where another one is best."""
    if best is None or best['step'] == step:
        return '; best so far' if best else ''
    value = f'{best[metric]:.3f}' if metric == 'nll' else f'{best[metric]:.2%}'
    return f'; best so far {metric} {value} of epoch {best["epoch"]:g}'
