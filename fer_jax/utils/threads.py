"""A pool of threads that drops waiting work where an error ends it."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def threads(count: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool whose waiting work is dropped where the block ends by an exception, so that a signal stops at once."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
