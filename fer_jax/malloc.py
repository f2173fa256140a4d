"""glibc's allocator, told to keep what is freed."""

import ctypes
import os
import sys

ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD = -8, -4, -1  # of <malloc.h>
CHOSEN = ('MALLOC_ARENA_MAX', 'MALLOC_MMAP_MAX_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_', 'GLIBC_TUNABLES')


def keep_freed() -> bool:
    """Lets this process keep the memory that it frees, for what it allocates next; whether it does.

    XLA for CPUs allocates what a step works with at every step. glibc takes as much from the kernel each time, page by
    page and filled with zeros, and gives it back: a tenth to a fifth of a training step. One arena and no mapping keep
    it in the process, whose memory then stays what it was at its largest. To be called before a second thread is there.
    Left alone where the environment chooses (`GLIBC_TUNABLES=` leaves everything to glibc), and where the allocator is
    not glibc's.
    """
    if not sys.platform.startswith('linux') or any(name in os.environ for name in CHOSEN):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    settings = ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1))
    return mallopt is not None and all(mallopt(*setting) for setting in settings)
