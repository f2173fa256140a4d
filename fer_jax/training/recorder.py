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
    """One run's records from `step` on. Deterministic scalars and times go to different files.

    Of several processes the first one's are kept.

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
        """The records of deterministic values up to `step`."""
        return up_to(self.workdir / 'metrics.jsonl', step)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """The time within the block is that of 'data' or 'checkpoint', not of compute."""
        begun = time.perf_counter()
        yield
        self._spent[what] += time.perf_counter() - begun

    def trace(self, count: int, output: Any) -> None:
        """Begins or ends the trace of a profiled run, after so many more steps; `output` is of the last."""
        if self._window:
            self._window.stepped(count, output)

    def stepped(self, count: int) -> None:
        """So many more training steps were dispatched."""
        self._images += count * self._batch_size
        self._bar.update(count * self._batch_size)

    def metrics(self, step: int, epoch: float, phase: int, split: str, values: Mapping[str, Any]) -> None:
        """Writes one record of deterministic values; those that are single numbers go to TensorBoard too."""
        record = {'step': step, 'epoch': round(epoch, 4), 'phase': phase, 'split': split, **values}
        self._files['metrics'].write(json.dumps(record) + '\n')
        for name, value in values.items():
            if isinstance(value, float):
                tag = f'{name[:-3]}loss' if name.endswith('nll') else name
                self._board.add_scalar(f'{split}/{tag}', value, step)

    def rate(self, step: int, **shown: str) -> None:
        """Writes the time of training since the last call, and its parts, and shows `shown` on the bar.

        'data' is the time that the host spent on batches or waited for them, 'checkpoint' that in which saving kept it
        from going on, and 'compute' the rest, compilation included.
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
        """Writes the time of something other than training steps."""
        self._files['timing'].write(json.dumps({'step': step, 'event': event, 'seconds': round(seconds, 3)}) + '\n')
        self.restart_clock()

    def restart_clock(self) -> None:
        self._since, self._images = time.perf_counter(), 0
        self._spent.clear()

    def say(self, text: str) -> None:
        """Prints above the progress bar."""
        self._bar.write(text)

    def close(self) -> None:
        if self._window:
            self._window.close()
        self._bar.close()
        self._board.close()
        for file in self._files.values():
            file.close()
