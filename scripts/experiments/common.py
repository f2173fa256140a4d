"""What the experiments share: which cells were asked for, what they cost, and the files that hold their rows."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.runs import metrics_log

Row = dict[str, Any]


def choose(flag: str, asked: str, known: Iterable[str]) -> list[str]:
    """Returns the names in `asked`, separated by commas.

    Raises:
      UserError: a name is not known.
    """
    names, known = asked.split(','), list(known)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f'--{flag}: {", ".join(unknown)} unknown; choose of {", ".join(known)}')
    return names


def spent_minutes(workdir: Path) -> float:
    """Returns the minutes of training and evaluation in all runs in or below `workdir`, compilation included."""
    files = workdir.rglob('timing.jsonl')
    return sum(record['seconds'] for path in files for record in metrics_log.read_metrics(path)) / 60


def minutes_left(rows: Sequence[Row], total: int) -> float:
    """Returns the expected minutes of the rows to come; rows without 'minutes' do not count as measured."""
    spent = [row['minutes'] for row in rows if 'minutes' in row]
    return sum(spent) / max(len(spent), 1) * (total - len(rows))


def write_rows(output: Path | None, rows: Sequence[Row], table: Callable[[Sequence[Row]], str]) -> None:
    """Writes one JSON object a row to `output`, and the Markdown table beside it; nothing for None."""
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    output.with_suffix('.md').write_text(table(rows))
