"""What a run writes while it goes: metrics.jsonl, timing.jsonl, TensorBoard files, a progress bar."""

import contextlib
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_jax.distributed import processes
from fer_jax.reporting.tensorboard import TensorBoard
from fer_jax.runs.metrics_log import RecordFile, read_metrics
from fer_jax.training.profiler import Window
from fer_jax.utils import progress

Log = Callable[[dict[str, float], int], None]


class Recorder:
    """Writes the records of one run from `step` on. Deterministic scalars and times go to different files.

    Only the main one of several processes writes them.

    Args:
      history: sha256 of metrics.jsonl up to `step`, as the checkpoint keeps it; '' where it is not known.
      profile: trace some steps into `<workdir>/profile`.
      log: gets the scalars that TensorBoard gets, {tag: value}, and their step.

    Raises:
      UserError: metrics.jsonl is not what it was when the checkpoint was saved.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        step: int,
        total: int,
        batch_size: int,
        history: str = '',
        profile: bool = False,
        log: Log | None = None,
    ):
        self.workdir = workdir
        self._files: dict[str, RecordFile] = {}
        if processes.is_main_process():
            self._files['metrics'] = RecordFile(workdir / 'metrics.jsonl', step, history)
            self._files['timing'] = RecordFile(workdir / 'timing.jsonl', step)
        self._board: TensorBoard | None = None
        if processes.is_main_process():
            self._board = TensorBoard(workdir / 'tensorboard', step + 1 if step else None)
        self._batch_size = batch_size
        self._log = log
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
        """Returns the records of deterministic values up to `step`.

        Raises:
          UserError: metrics.jsonl is no longer what was written.
        """
        file = self._files.get('metrics')
        records = file.read() if file else read_metrics(self.workdir / 'metrics.jsonl')
        return [record for record in records if record['step'] <= step]

    def seal_history(self) -> str:
        """Waits until metrics.jsonl is on the disk, and returns its sha256, for a checkpoint to keep."""
        if not self._files:
            return ''
        self._files['metrics'].flush()
        return self._files['metrics'].sha256

    def _scalar(self, tag: str, value: float, step: int) -> None:
        if self._board:
            self._board.add_scalar(tag, value, step)

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        if name in self._files:
            self._files[name].append(record)

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
        self._append('metrics', record)
        floats = {name: value for name, value in values.items() if isinstance(value, float)}
        scalars = {f'{split}/{re.sub("nll$", "loss", name)}': value for name, value in floats.items()}
        for tag, value in scalars.items():
            self._scalar(tag, value, step)
        if self._log:
            self._log(scalars, step)

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
        self._append('timing', record | {'images_per_second': round(rate, 1)})
        self._scalar('timing/images_per_second', rate, step)
        self._bar.set_postfix(shown, refresh=sys.stderr.isatty())
        self.restart_clock()

    def took(self, step: int, event: str, seconds: float) -> None:
        """Writes the time of an event other than training steps."""
        if self._board:
            self._board.flush()
        self._append('timing', {'step': step, 'event': event, 'seconds': round(seconds, 3)})
        self.restart_clock()

    def restart_clock(self) -> None:
        self._since, self._images = time.perf_counter(), 0
        self._spent.clear()

    @contextlib.contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Displays `text` before the progress bar while the block runs."""
        self._bar.set_description_str(f'{text}: ', refresh=sys.stderr.isatty())
        yield
        self._bar.set_description_str('', refresh=False)

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        self._bar.write(text)

    def close(self) -> None:
        if self._window:
            self._window.close()
        self._bar.close()
        if self._board:
            self._board.close()
        for file in self._files.values():
            file.close()
