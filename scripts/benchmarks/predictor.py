"""Speed and memory of a loaded classifier on face crops of many sizes, and on batches of many sizes.

    python scripts/benchmarks/predictor.py --workdir release --count 300 --out docs/results/predictor_cpu.jsonl

Each case runs after a first call, so that the time to load and to compile the first program is left out.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
import fer_jax  # noqa: E402

CASES = ('one size', 'crops of many sizes', 'batches of many sizes')


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workdir', default='release', help='run to load')
    parser.add_argument('--count', type=int, default=300, help='calls of each case')
    parser.add_argument('--out', type=Path, help='append one JSON line a case')
    arguments = parser.parse_args(argv)
    for case in CASES:
        classify = fer_jax.load(arguments.workdir)
        images = batches(case, arguments.count, classify.image_size)
        classify(next(images))
        memory, start, examples = resident_bytes(), time.perf_counter(), 0
        for batch in images:
            classify(batch)
            examples += len(batch)
        seconds = time.perf_counter() - start
        record = {
            'case': case,
            'calls': arguments.count,
            'seconds': round(seconds, 2),
            'images_per_second': round(examples / seconds, 1),
            'growth_bytes': resident_bytes() - memory,
        }
        print(json.dumps(record), flush=True)
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            with arguments.out.open('a') as file:
                file.write(json.dumps(record) + '\n')
    return 0


def batches(case: str, count: int, side: int) -> Iterator[np.ndarray]:
    """Yield `count` + 1 batches, uint8 [B, H, W, 3]."""
    rng = np.random.default_rng(0)
    for index in range(count + 1):
        size = 40 + index if case == 'crops of many sizes' else side
        length = 1 + index % 64 if case == 'batches of many sizes' else 1
        yield rng.integers(0, 256, (length, size, size, 3), np.uint8)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = Path('/proc/self/statm').read_text().split()[1]
    return int(pages) * 4096


if __name__ == '__main__':
    sys.exit(main())
