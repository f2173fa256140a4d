"""What a run writes while it goes: metrics.jsonl, timing.jsonl, TensorBoard files, a progress bar."""

import contextlib
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_jax.distributed import processes
from fer_jax.runs.metrics_log import cut_back, up_to
from fer_jax.training.profiler import Window
from fer_jax.utils import progress


class Recorder:
    """Writes the records of one run from `step` on. Deterministic scalars and times go to different files.

    Only the main one of several processes writes them.

    Args:
      profile: trace some steps into `<workdir>/profile`.
    """

    def __init__(self, workdir: Path, *, step: int, total: int, batch_size: int, profile: bool = False):
        from tensorboardX import SummaryWriter

        self.workdir = workdir
        self._files = {}
        for name in ('metrics', 'timing'):
            path = workdir / f'{name}.jsonl'
            if processes.is_main_process():
                cut_back(path, step)
            self._files[name] = (path if processes.is_main_process() else Path(os.devnull)).open('a', buffering=1)
        purge = step + 1 if step else None
        board = str(workdir / 'tensorboard') if processes.is_main_process() else tempfile.gettempdir()
        self._board = SummaryWriter(board, purge_step=purge, write_to_disk=processes.is_main_process())
        self._batch_size = batch_size
        self._bar = progress.bar(
            None,
            '',
            total * batch_size,
            delay=0,
            initial=step * batch_size,
            unit_scale=True,
            dynamic_ncols=True,
            smoothing=0.1,
            leave=True,
        )
        self._window = Window(workdir / 'profile', self.say) if profile and processes.is_main_process() else None
        self._spent: defaultdict[str, float] = defaultdict(float)
        self.restart_clock()

    def history(self, step: int) -> list[dict[str, Any]]:
        """Returns the records of deterministic values up to `step`."""
        return up_to(self.workdir / 'metrics.jsonl', step)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the time within the block to `what`, 'data' or 'checkpoint', instead of to compute."""
        begun = time.perf_counter()
        yield
        self._spent[what] += time.perf_counter() - begun

    def trace(self, count: int, output: Any) -> None:
        """Starts or ends a profiled run's trace after `count` more steps; `output` is the last one's result."""
        if self._window:
            self._window.stepped(count, output)

    def stepped(self, count: int) -> None:
        """Counts `count` more dispatched training steps and moves the progress bar."""
        self._images += count * self._batch_size
        self._bar.update(count * self._batch_size)

    def metrics(self, step: int, epoch: float, phase: int, split: str, values: Mapping[str, Any]) -> None:
        """Writes one record of deterministic values; scalars are also written to TensorBoard."""
        record = {'step': step, 'epoch': round(epoch, 4), 'phase': phase, 'split': split, **values}
        self._files['metrics'].write(json.dumps(record) + '\n')
        for name, value in values.items():
            if isinstance(value, float):
                tag = f'{name[:-3]}loss' if name.endswith('nll') else name
                self._board.add_scalar(f'{split}/{tag}', value, step)

    def rate(self, step: int, **shown: str) -> None:
        """Writes the training time since the last call and its parts, and displays `shown` on the progress bar.

        'data' is the time in which the host prepared batches or waited for them, 'checkpoint' the time in which saving
        blocked it, and 'compute' the rest, compilation included.
        """
        seconds = time.perf_counter() - self._since
        rate = self._images / seconds if seconds else 0.0
        spent = {name: self._spent[name] for name in ('data', 'checkpoint')}
        parts = {'seconds': seconds, **spent, 'compute': seconds - sum(spent.values())}
        record = {'step': step, 'event': 'train', **{name: round(value, 4) for name, value in parts.items()}}
        self._files['timing'].write(json.dumps(record | {'images_per_second': round(rate, 1)}) + '\n')
        self._board.add_scalar('timing/images_per_second', rate, step)
        self._bar.set_postfix(shown)
        self.restart_clock()

    def took(self, step: int, event: str, seconds: float) -> None:
        """Writes the time of an event other than training steps."""
        self._files['timing'].write(json.dumps({'step': step, 'event': event, 'seconds': round(seconds, 3)}) + '\n')
        self.restart_clock()

    def restart_clock(self) -> None:
        self._since, self._images = time.perf_counter(), 0
        self._spent.clear()

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        self._bar.write(text)

    def close(self) -> None:
        if self._window:
            self._window.close()
        self._bar.close()
        self._board.close()
        for file in self._files.values():
            file.close()
