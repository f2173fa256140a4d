import io

import pytest

from fer_jax.utils import progress


@pytest.mark.parametrize('known', [True, False])
def test_in_a_file_progress_is_lines(monkeypatch, known):
    stream = io.StringIO()
    monkeypatch.setattr('sys.stderr', stream)
    monkeypatch.setattr(progress, 'REPORT_SECONDS', 0.0)
    items = range(3) if known else iter(range(3))
    with progress.bar(None, 'outer', 2) as outer:
        for _ in progress.bar(items, 'reading', delay=0.0):
            outer.set_description_str('compiling: ')
        outer.update(2)
        outer.refresh()
    lines = stream.getvalue().splitlines(keepends=True)
    assert len(lines) > 3 and all(line == f'{line.strip()}\n' for line in lines)
    assert '\r' not in stream.getvalue() and '\x1b' not in stream.getvalue() and '|' not in lines[-1]
    assert any(line.startswith('reading: 100 %, 3 of 3 img' if known else 'reading: ') for line in lines)
    assert lines[-1].startswith('compiling: 100 %, 2 of 2 img')
