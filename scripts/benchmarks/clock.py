"""What scripts/benchmarks/run.py measures one contender with: time, CPU time and memory of steps and process."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHUNK = 0.3  # seconds of steps that are queued before one waits for them
SETTLED, LONGEST = 5, 40  # steps without growth of memory after which one measures, and steps to wait for them


def timed(
    call: Callable[[], Any],
    wait: Callable[[Any], None],
    images: int,
    seconds: float,
    taken: Callable[[], int] | None = None,
) -> dict[str, float]:
    """Images per second and per CPU-second of `call`, called without waiting, and what the first call took.

    Args:
      call: takes a step of `images` images, or several; `wait` waits until what it returned is there.
      seconds: that are measured at least, of at least four steps, once the process has the memory that it needs.
      taken: how many steps all calls have taken; one each if not given.
    """
    calls = 0

    def step() -> Any:
        nonlocal calls
        calls += 1
        return call()

    taken = taken or (lambda: calls)
    begun = time.perf_counter()
    wait(step())
    first, ready = time.perf_counter() - begun, age()
    grown, most = taken(), 0
    while taken() < LONGEST:
        wait(step())
        if (now := resident('VmHWM')) > 1.01 * most:
            grown, most = taken(), now
        if taken() - grown >= SETTLED:
            break
    reset_peak()
    begun = time.perf_counter()
    wait(step())
    together = max(1, int(CHUNK / (time.perf_counter() - begun)))
    before, begun, cpu = taken(), time.perf_counter(), cpu_seconds()
    while taken() < before + 4 or time.perf_counter() - begun < seconds:
        for _ in range(together):
            result = step()
        wait(result)
    count = taken() - before
    elapsed, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
    return {
        'images_per_second': images * count / elapsed,
        'images_per_cpu_second': images * count / cpu,
        'step_ms': 1e3 * elapsed / count,
        'first_seconds': first,
        'ready_seconds': ready,
    }


def age() -> float:
    """Seconds since this process was started."""
    started = int(Path('/proc/self/stat').read_text().rsplit(')', 1)[1].split()[19]) / os.sysconf('SC_CLK_TCK')
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def cpu_seconds() -> float:
    """Of this process and of the workers that live: PyTorch's loader has some."""
    total = time.process_time()
    for path in Path(f'/proc/{os.getpid()}/task').glob('*/children'):
        for child in path.read_text().split():
            fields = Path(f'/proc/{child}/stat').read_text().rsplit(')', 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    return total


def reset_peak() -> None:
    """Lets the highest resident memory be that from now on."""
    Path('/proc/self/clear_refs').write_text('5')


def resident(field: str = 'VmRSS') -> int:
    """Bytes of this process in memory; 'VmHWM': at their highest since `reset_peak`."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))
