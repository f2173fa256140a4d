"""Orbax behind one door: the newest and the best checkpoint of a run, and what network they belong to."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fer_jax.distributed import processes
from fer_jax.errors import UserError
from fer_jax.models.network import ModelSpec
from fer_jax.models.parameters import Variables
from fer_jax.runs import checksums, model_file
from fer_jax.utils import checked_files, disk_faults

log = logging.getLogger('fer_jax')
HISTORY = 'metrics_jsonl_sha256'  # in the metadata of a step
# metric -> whether a larger value is better
SELECTABLE = {'accuracy': True, 'balanced_accuracy': True, 'macro_f1': True, 'nll': False}


def parse_select(select: str) -> tuple[str, str]:
    """Splits a selection criterion into split and metric: 'validation/accuracy' -> ('validation', 'accuracy').

    Raises:
      UserError: the metric is unknown, or the split is the test split: a score on examples that chose the checkpoint
        is optimistic.
    """
    role, _, metric = select.partition('/')
    if role == 'test':
        raise UserError(
            f'checkpoint.select={select!r} would choose the checkpoint on the test split, which makes its score '
            f'optimistic and worthless; choose validation/{metric or "accuracy"}'
        )
    if role != 'validation' or metric not in SELECTABLE:
        raise UserError(
            f'checkpoint.select={select!r} is unknown; expected validation/ and one of {", ".join(SELECTABLE)}'
        )
    return role, metric


def _score(metrics: Mapping[str, float]) -> float:
    return metrics['score']


class Checkpoints:
    """Saves and restores the checkpoints of one workdir, in `<workdir>/checkpoints/`.

    The folder holds `<step>/{model,train}`, the manifest of each step, and `model.json`. Item `model` is
    {params, batch_stats}, all that evaluation needs: the moving averages where a phase keeps them. Item `train` is what
    training needs besides to continue: {step, opt_state, sums, scale, health, current}; `current` holds the trained
    parameters and statistics where `model` has their averages.

    Saving is asynchronous. A step counts once its manifest is written, after all its files; then the newest `keep` and
    the best step are kept, and the others are deleted. Only a step whose files match its manifest is restored. A step
    that does not match is reported, and moved to `set_aside/` unless the folder is opened read-only.

    Attributes:
      damaged: {step: reason} of the steps that were left out when the folder was opened.
    """

    def __init__(
        self,
        workdir: Path,
        spec: ModelSpec,
        *,
        select: str = 'validation/accuracy',
        keep: int = 1,
        read_only: bool = False,
    ):
        """Opens or makes the folder.

        Args:
          select: selection criterion, see `parse_select`.
          keep: number of the newest checkpoints that are kept, beside the best.
          read_only: makes, moves and deletes nothing.

        Raises:
          UserError: the folder is a file, or holds checkpoints of another model or class list.
        """
        self.directory = (workdir / 'checkpoints').absolute()
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f'{self.directory} is a file; checkpoints need a folder of that name: move it away')
        self._keep = keep
        self._larger_is_better = SELECTABLE[parse_select(select)[1]]
        path = self.directory / 'model.json'
        if path.exists():
            model_file.check_same(model_file.read_spec(workdir), spec, self.directory)
        elif not read_only and processes.is_main_process():
            self.directory.mkdir(parents=True, exist_ok=True)
            checked_files.write_json(path, dataclasses.asdict(spec))
        self.damaged: dict[str, str] = {}
        steps = self._verified_steps(read_only=read_only) if processes.is_main_process() else []
        self._steps: list[int] = json.loads(processes.broadcast_from_main(json.dumps(steps)))
        processes.shared_file(path)
        # Named processes meet at JAX's service. Others would meet on the devices, also out of the sealing thread, where
        # their collectives mix with those of a step.
        among = ocp.options.MultiprocessingOptions(active_processes=set(range(processes.count())))
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                name: ocp.StandardCheckpointHandler(multiprocessing_options=among) for name in ('model', 'train')
            },
            options=ocp.CheckpointManagerOptions(
                create=False,
                multiprocessing_options=among,
                best_fn=_score,  # without it no metrics are written; which steps are kept is decided in _seal
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )
        self._sealer = ThreadPoolExecutor(1)
        self._sealed: Future[None] | None = None

    def _verified_steps(self, *, read_only: bool) -> list[int]:
        steps = []
        for folder in step_folders(self.directory):
            if reason := checksums.find_damage(folder):
                self.damaged[folder.name] = reason
                log.warning('checkpoint %s is left out: %s', folder, reason)
                if not read_only:
                    checksums.quarantine(folder)
            else:
                steps.append(int(folder.name))
        return steps

    def latest_step(self) -> int | None:
        return max(self._steps, default=None)

    def best_step(self) -> int | None:
        """Returns the step of the best finite score, the newest among equals; None before the first evaluation."""
        scored = [(metrics['score'], step) for step in self._steps if (metrics := self._manager.metrics(step))]
        return max(scored)[1] if scored else None

    def history_sha256(self, step: int) -> str:
        """Returns the sha256 that metrics.jsonl had when `step` was saved; '' where that is not known."""
        return str((self._manager.metadata(step).custom_metadata or {}).get(HISTORY, ''))

    def save(self, items: Mapping[str, Any], value: float | None = None, history: str = '') -> None:
        """Starts to save a step, after waiting for the save before; a step that is already saved is skipped.

        Args:
          items: {'model', 'train'}: trees of arrays; the step is that of 'train'.
          value: the selection metric, where it was measured at this step. A value that is not finite counts as not
            measured, so that it cannot become the best.
          history: sha256 of metrics.jsonl at this step.

        Raises:
          UserError: this step, or the one before, cannot be written.
        """
        step = int(items['train']['step'])
        self.wait()
        if step in self._steps:
            return
        if processes.is_main_process() and not (self.directory / 'model.json').exists():
            raise disk_faults.removed_folder(self.directory)
        metrics = None
        if value is not None and math.isfinite(value):
            metrics = {'score': value if self._larger_is_better else -value}
        saved = {name: ocp.args.StandardSave(jax.tree.map(_one_copy, tree)) for name, tree in items.items()}
        try:
            about = {HISTORY: history} if history else None
            self._manager.save(step, args=ocp.args.Composite(**saved), metrics=metrics, custom_metadata=about)
        except (OSError, ValueError, RuntimeError) as error:  # Orbax raises its store's errors as ValueError
            raise self._unwritten(error) from error
        self._sealed = self._sealer.submit(self._seal, step)

    def _seal(self, step: int) -> None:
        """Waits for the files of `step`, seals them, and removes the steps that are now neither newest nor best.

        All processes go through it, and are told of the seal before any goes on.
        """
        self._manager.wait_until_finished()
        if processes.is_main_process():
            checksums.write_checksums(self.directory / str(step))
        processes.barrier(f'sealed {step} of {self.directory}')
        self._steps.append(step)
        for other in sorted(set(self._steps) - {*sorted(self._steps)[-self._keep :], self.best_step()}):
            self._steps.remove(other)
            if processes.is_main_process():
                checksums.manifest_of(self.directory / str(other)).unlink(missing_ok=True)
            processes.barrier(f'without {other} of {self.directory}')
            self._manager.delete(other)

    def restore_model(self, step: int, abstract: Variables) -> Variables:
        """Restores the variables of `step`.

        Args:
          abstract: variables of `jax.ShapeDtypeStruct` with shardings, which give the shapes, dtypes and devices.

        Raises:
          UserError: what is stored has other shapes or dtypes, or cannot be restored.
        """
        return Variables(**self._restore(step, 'model', abstract._asdict()))

    def restore_train(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Restores the item 'train' of `step`.

        Args:
          like: tree of arrays that give the shapes, dtypes and shardings of the result.

        Raises:
          UserError: what is stored has other shapes or dtypes, or cannot be restored.
        """
        return self._restore(step, 'train', jax.tree.map(ocp.utils.to_shape_dtype_struct, dict(like)))

    def _restore(self, step: int, name: str, target: Any) -> Any:
        """One item, after a look at what is stored: Orbax would cast another type in silence."""
        folder = self.directory / str(step) / name
        try:
            stored = _shapes(self._manager.item_metadata(step)[name])
            wanted = _shapes(target)
            for path in sorted(set(stored) | set(wanted)):
                if stored.get(path) != wanted.get(path):
                    raise UserError(
                        f'checkpoint {folder} is of another configuration: {path} is {stored.get(path, "absent")}, '
                        f'this run has {wanted.get(path, "no such leaf")}; choose another --workdir'
                    )
            items = ocp.args.Composite(**{name: ocp.args.StandardRestore(target)})
            return self._manager.restore(step, args=items)[name]
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise UserError(
                f'checkpoint {folder} cannot be restored ({str(error).splitlines()[0]}); '
                'it is of another configuration or version: choose another --workdir'
            ) from error

    def wait(self) -> None:
        """Waits until every save is on disk and sealed.

        Raises:
          UserError: a save cannot be written.
        """
        if self._sealed is not None:
            sealed, self._sealed = self._sealed, None
            processes.step_finished()  # a process that cannot write keeps the others waiting inside Orbax
            try:
                sealed.result()
            except Exception as error:
                raise self._unwritten(error) from error
            finally:
                processes.step_finished(more=False)

    def _unwritten(self, error: Exception) -> UserError:
        if not (self.directory / 'model.json').exists():
            return disk_faults.removed_folder(self.directory)
        number = disk_faults.fault_number(error)
        reason = os.strerror(number) if number else (str(error) or type(error).__name__).splitlines()[0]
        return UserError(
            f'a checkpoint cannot be written to {self.directory} ({reason}); {disk_faults.free_space(self.directory)}. '
            'Earlier ones are whole: make room, or move the workdir to another disk, and the same command goes on'
        )

    def close(self) -> None:
        """Waits for the last save, and releases the checkpoint manager.

        Raises:
          UserError: a save that nobody waited for cannot be written.
        """
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            with contextlib.suppress(Exception):  # what `wait` has raised, once more
                self._manager.close()


def _one_copy(leaf: Any) -> Any:
    """One of the equal copies on the devices of one process: Orbax would slice each, and compile for each shape."""
    if processes.count() == 1 and isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    return leaf


def _shapes(tree: Any) -> dict[str, str]:
    """path -> 'float32[3, 3]'"""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, 'dtype'))[0]
    named = {}
    for path, leaf in leaves:
        if hasattr(leaf, 'dtype'):
            keys = [str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in path]
            named['/'.join(keys)] = f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
    return named


def digest(folder: Path) -> str:
    """Computes the sha256 of the arrays of the step in `folder`, over their names, dtypes, shapes and contents.

    Two steps with the same bits have the same digest, however Orbax laid them out in files.
    """
    total = hashlib.sha256()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with ocp.StandardCheckpointer() as reader:
        for name in ('model', 'train'):
            about = reader.metadata(folder / name).item_metadata.tree
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), about)
            for path, leaf in jax.tree_util.tree_leaves_with_path(reader.restore(folder / name, target)):
                named = f'{name}{jax.tree_util.keystr(path)} {leaf.dtype.name}{list(leaf.shape)}'
                total.update(named.encode() + b'\0' + np.asarray(leaf).tobytes())
    return total.hexdigest()


def step_folders(directory: Path) -> list[Path]:
    """Lists the folders that are named like steps, complete or not, in the order of their steps."""
    if not directory.is_dir():
        return []
    folders = [path for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name))
