"""Orbax behind one door: the newest and the best checkpoint of a run, and what network they belong to."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from fer_jax.errors import UserError
from fer_jax.network import ModelSpec
from fer_jax.partition import Flat
from fer_jax.train_state import Fixed, TrainState, scored

# metric -> whether a larger value is better
SELECTABLE = {'accuracy': True, 'balanced_accuracy': True, 'macro_f1': True, 'nll': False}


def parse_select(select: str) -> tuple[str, str]:
    """'validation/accuracy' -> ('validation', 'accuracy').

    Raises:
      UserError: the metric is unknown, or the split is the test split: a score on examples that chose the checkpoint
        is not an estimate of anything.
    """
    role, _, metric = select.partition('/')
    if role == 'test':
        raise UserError(
            f'checkpoint.select={select!r} would choose the checkpoint on the test split, which makes its score '
            f'optimistic and worthless; choose validation/{metric or "accuracy"}'
        )
    if role not in ('train', 'validation') or metric not in SELECTABLE:
        raise UserError(
            f'checkpoint.select={select!r} is unknown; expected validation/ and one of {", ".join(SELECTABLE)}'
        )
    return role, metric


def _train_item(state: TrainState) -> dict[str, Any]:
    current = {'trainable': state.trainable, 'batch_stats': state.batch_stats} if state.ema else {}
    fields = {name: getattr(state, name) for name in ('step', 'opt_state', 'sums', 'scale')}
    return fields | {'current': current}


def _score(metrics: Mapping[str, float]) -> float:
    return metrics['score']


class Checkpoints:
    """The checkpoints of one workdir: `<workdir>/checkpoints/<step>/{model,train}` and `model.json`.

    Item `model` is {params, batch_stats}, all that evaluation needs: the moving averages where a phase keeps them. Item
    `train` is what going on needs besides: {step, opt_state, sums, scale, current}, of which `current` holds the
    trained parameters and statistics where `model` has their averages.
    Saving is asynchronous. The newest step and the best one are kept.
    """

    def __init__(self, workdir: Path, spec: ModelSpec, *, select: str = 'validation/accuracy', read_only: bool = False):
        """Opens or makes the folder.

        Raises:
          UserError: it is a file, or holds checkpoints of another model or class list.
        """
        self.directory = (workdir / 'checkpoints').absolute()
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f'{self.directory} is a file; checkpoints need a folder of that name: move it away')
        self._larger_is_better = SELECTABLE[parse_select(select)[1]]
        path = self.directory / 'model.json'
        if path.exists():
            _refuse_another(read_spec(workdir), spec, self.directory)
        elif not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
            path.write_text(spec.to_json())
        best = BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=('model', 'train'),
            options=ocp.CheckpointManagerOptions(
                best_fn=_score,
                best_mode='max',
                preservation_policy=AnyPreservationPolicy([LatestN(n=1), best]),
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the best finite score; the newest among equals; None before the first evaluation."""
        scored = [step for step in self._manager.all_steps() if self._manager.metrics(step)]
        return self._manager.best_step() if scored else None

    def save(self, state: TrainState, fixed: Fixed, value: float | None = None) -> None:
        """Starts to save; `value` is the selection metric where it was measured at this step.

        A value that is not finite counts as not measured: Orbax would let it displace the true best.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        metrics = None
        if value is not None and math.isfinite(value):
            metrics = {'score': value if self._larger_is_better else -value}
        params, batch_stats = scored(state, fixed)
        model = {'params': params, 'batch_stats': batch_stats}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(model), train=ocp.args.StandardSave(_train_item(state))
            ),
            metrics=metrics,
        )

    def restore_model(self, step: int, params: Any, batch_stats: Any) -> tuple[Flat, Flat]:
        """(params, batch_stats) of `step`, placed as the abstract trees say (`jax.ShapeDtypeStruct` with sharding)."""
        target = {'params': params, 'batch_stats': batch_stats}
        restored = self._restore(step, model=ocp.args.StandardRestore(target))['model']
        return restored['params'], restored['batch_stats']

    def restore_train(self, step: int, state: TrainState) -> TrainState:
        """`state`, entered with the parameters of `restore_model`, as it was after `step`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _train_item(state))
        item = self._restore(step, train=ocp.args.StandardRestore(target))['train']
        return state._replace(**item.pop('current'), **item)

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise UserError(
                f'checkpoint {self.directory / str(step)} cannot be restored ({str(error).splitlines()[0]}); '
                'it is damaged or of another configuration: remove that folder to go on from an earlier step'
            ) from error

    def wait(self) -> None:
        """Returns when every save is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def read_spec(workdir: Path) -> ModelSpec:
    """The network whose checkpoints `workdir` holds."""
    path = workdir / 'checkpoints' / 'model.json'
    if not path.is_file():
        raise UserError(f'workdir={str(workdir)!r} holds no run (no {path}); give the folder that training wrote')
    return ModelSpec.from_json(path.read_text())


def _refuse_another(there: ModelSpec, here: ModelSpec, directory: Path) -> None:
    for field in ('name', 'classes', 'channels', 'head', 'mean', 'std', 'order'):
        old, new = getattr(there, field), getattr(here, field)
        if old != new:
            raise UserError(
                f'{directory} holds checkpoints of another model: its {field} is {_short(old)}, this run has '
                f'{_short(new)}; choose another --workdir or the config of that run'
            )


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return '; '.join(f'{task}: {", ".join(names)}' for task, names in value.items())
    return str(value)
