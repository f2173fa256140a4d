"""What the second phase costs at its beginning: the share of each cause, on the quickstart's network and faces.

    python scripts/experiments/seam.py --steps 40

The head trains on the frozen backbone for three epochs. From there each row takes the first steps of a phase that
trains everything, all on the same batches. Training loss and accuracy are means over these steps, each before its
update; validation is scored after the last one, and with --whole after the last step of the phase too.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

import jax
import optax

from configs import quickstart
from fer_jax.config import defaults
from fer_jax.evaluation.network_scorer import NetworkScorer
from fer_jax.models.parameters import Variables
from fer_jax.training import setup, train_state
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.training.run import Run
from fer_jax.training.train_state import FrozenState, TrainState

STILL = 1e-12  # a learning rate at which nothing moves
HEAD = {'epochs': 3, 'rates': defaults.HEAD_ONLY, 'learning_rate': 4e-3}
ALL = {'epochs': 4, 'rates': defaults.ALL, 'learning_rate': 2e-3, 'weight_decay': 1e-4}
KEEP = 'keep'  # the state of the head's optimizer, as a field of the second phase
CASES: dict[str, dict[str, Any]] = {  # fields of the second phase
    'nothing moves, BatchNorm frozen': {'learning_rate': STILL, 'batch_norm': 'frozen'},
    'nothing moves': {'learning_rate': STILL},
    'everything at the full rate': {},
    'the same, optimizer state of the head kept': {KEEP: True},
    'the same, at a tenth of the rate': {'learning_rate': ALL['learning_rate'] / 10},
    'the same, warm-up of 0.4 epochs': {'warmup_epochs': 0.4},
    'the same, BatchNorm frozen': {'batch_norm': 'frozen'},
    'the same, BatchNorm frozen, warm-up of 0.4 epochs': {'batch_norm': 'frozen', 'warmup_epochs': 0.4},
    'the same, BatchNorm frozen, a quarter of the rate, warm-up of 1 epoch': {
        'batch_norm': 'frozen',
        'learning_rate': ALL['learning_rate'] / 4,
        'warmup_epochs': 1.0,
    },
    'the same, BatchNorm frozen, half of the rate, warm-up of 1 epoch': {
        'batch_norm': 'frozen',
        'learning_rate': ALL['learning_rate'] / 2,
        'warmup_epochs': 1.0,
    },
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=40, help='of the second phase')
    parser.add_argument('--whole', action='store_true', help='take the whole second phase, too')
    parser.add_argument('--cases', default='', help='numbers of the rows, from 0, such as 0,2; all if empty')
    arguments = parser.parse_args(argv)
    numbers = [int(number) for number in arguments.cases.split(',') if number] or range(len(CASES))
    run = prepare(HEAD, ALL)
    state, fixed = take_steps(PhaseProgram(run, run.phases[0]), run.initial(), run.phases[0].last)
    variables, head = train_state.all_variables(state, fixed), state.opt_state[0]
    print(f'| first {arguments.steps} steps | train loss | train accuracy | validation after | at the end |')
    print('|---|---|---|---|---|')
    print(f'| none | | | {validation(run, variables):.1%} | |', flush=True)
    for name, fields in [list(CASES.items())[number] for number in numbers]:
        run = prepare(HEAD, ALL | {key: value for key, value in fields.items() if key != KEEP})
        program = PhaseProgram(run, run.phases[1])
        state, fixed = take_steps(program, variables, arguments.steps, head if KEEP in fields else None)
        sums = {key: float(value) for key, value in jax.device_get(state.sums).items()}
        loss, accuracy = sums['primary/loss'] / sums['steps'], sums['primary/correct'] / sums['primary/examples']
        after = validation(run, train_state.eval_variables(state, fixed))
        end = ''
        if arguments.whole:
            state, fixed = take_steps(program, variables, program.phase.last - program.phase.first)
            end = f'{validation(run, train_state.eval_variables(state, fixed)):.1%}'
        print(f'| {name} | {loss:.3f} | {accuracy:.1%} | {after:.1%} | {end} |', flush=True)
    return 0


def prepare(*phases: Mapping[str, Any]) -> Run:
    """Prepares the quickstart with these phases."""
    config = quickstart.get_config()
    config.phases = tuple(defaults.phase(**fields) for fields in phases)
    return setup.prepare(json.loads(config.to_json()))


def take_steps(
    program: PhaseProgram, variables: Variables, count: int, head: Any = None
) -> tuple[TrainState, FrozenState]:
    """Takes the first steps of a phase.

    Args:
      head: Adam's state of the head, to go on with.
    """
    copies = jax.tree.map(lambda leaf: leaf.copy(), variables)  # the step consumes them
    state, fixed = program.init_state(program.phase.first, copies)
    if head is not None:
        state, program = keep_head(state, program, head)
    take, loader = program.step_function(), program.run.loader
    for step in range(program.phase.first, program.phase.first + count):
        state = take(state, fixed, loader.device_data, loader.host_batches([step]), 1)
    return state, fixed


def keep_head(state: TrainState, program: PhaseProgram, head: Any) -> tuple[TrainState, PhaseProgram]:
    """Lets the head go on with Adam's state of the phase before, and everything else begin anew."""
    labels = {path: 'head' if path.startswith('head.') else 'rest' for path in state.trainable}
    tx = optax.partition({'head': program.phase.tx, 'rest': program.phase.tx}, labels)
    program = dataclasses.replace(program, phase=dataclasses.replace(program.phase, tx=tx))
    opt_state = tx.init(state.trainable)
    masked = opt_state.inner_states['head']
    fresh, *others = masked.inner_state
    moments = {
        name: {path: getattr(head, name).get(path, leaf) for path, leaf in getattr(fresh, name).items()}
        for name in ('mu', 'nu')
    }
    kept = masked._replace(inner_state=(fresh._replace(count=head.count, **moments), *others))
    return state._replace(opt_state=opt_state._replace(inner_states=opt_state.inner_states | {'head': kept})), program


def validation(run: Run, variables: Variables) -> float:
    """Returns the accuracy on the validation split."""
    scorer = NetworkScorer(run.network, run.data, batch_size=128, placement='auto', mesh=run.mesh)
    return scorer.score('validation', variables)['validation']['accuracy']


if __name__ == '__main__':
    sys.exit(main())
