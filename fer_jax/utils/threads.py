"""A pool of threads that drops waiting work where an error ends it."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def threads(count: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Yields a thread pool; the end of the block cancels work that has not begun, and waits for running work.

    After an exception, such as that of a signal, the block thus ends without working off the queue.

    Args:
      count: number of threads; None for the default of ThreadPoolExecutor.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
