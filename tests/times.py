"""Measure where the time of every test goes; a pytest plugin.

    scripts/test -p tests.times -n auto       writes times.jsonl: one object a test
    python -m tests.times times.jsonl         prints the seconds of every file, then the slowest tests

Columns, in seconds: `wall`; `trace` and `compile`, the two halves of making a program in this process (a program read
from the cache counts as compiled); `cpu`, processor time of this process; `children`, that of the processes that the
test started and waited for. What pytest imports while it collects is in the row `collection`.
"""

import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

FILE = Path('times.jsonl')
COLUMNS = ('wall', 'trace', 'compile', 'cpu', 'children')
_spent = {'trace': 0.0, 'compile': 0.0}
_listening = False


def _count(event: str, seconds: float, **_) -> None:
    if event.endswith(('jaxpr_trace_duration', 'jaxpr_to_mlir_module_duration')):
        _spent['trace'] += seconds
    elif event.endswith('backend_compile_duration'):
        _spent['compile'] += seconds


def _now() -> dict[str, float]:
    global _listening
    if not _listening and 'jax' in sys.modules:
        import jax.monitoring

        jax.monitoring.register_event_duration_secs_listener(_count)
        _listening = True
    used = os.times()
    return {
        'wall': time.perf_counter(),
        **_spent,
        'cpu': used.user + used.system,
        'children': used.children_user + used.children_system,
    }


def _write(name: str, start: dict[str, float]) -> None:
    end = _now()
    row = {'test': name} | {column: round(end[column] - start[column], 3) for column in COLUMNS}
    with FILE.open('a') as file:
        file.write(json.dumps(row) + '\n')


def pytest_configure(config):
    if not hasattr(config, 'workerinput'):
        FILE.unlink(missing_ok=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    start = _now()
    result = yield
    _write('collection', start)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    start = _now()
    result = yield
    _write(item.nodeid, start)
    return result


def _table(rows: list[tuple[str, dict]]) -> None:
    print(f'{"":70} {"tests":>6}' + ''.join(f'{column:>9}' for column in COLUMNS))
    for name, row in rows:
        print(f'{name[-70:]:70} {row["tests"]:6}' + ''.join(f'{row[column]:9.1f}' for column in COLUMNS))


def main(path: str, most: int = 60) -> None:
    tests = [json.loads(line) | {'tests': 1} for line in Path(path).read_text().splitlines()]
    files: dict[str, dict] = defaultdict(lambda: dict.fromkeys(('tests', *COLUMNS), 0))
    for row in tests:
        for name in (row['test'].partition('::')[0], 'all'):
            for column in ('tests', *COLUMNS):
                files[name][column] += row[column]
    _table(sorted(files.items(), key=lambda pair: -pair[1]['wall']))
    print()
    _table([(row['test'], row) for row in sorted(tests, key=lambda row: -row['wall'])[:most]])


if __name__ == '__main__':
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
