"""What a run writes while it goes: metrics.jsonl, timing.jsonl, TensorBoard files, a progress bar."""

import json
from pathlib import Path
from typing import Any

from fer_jax.utils.atomic_files import write_text


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the records of a .jsonl file, up to the first line that is no record.

    A killed run may have written a part of its last line.
    """
    records = []
    if path.exists():
        for line in path.read_text(errors='replace').splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(record, dict):
                break
            records.append(record)
    return records


def up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """Reads the records of a .jsonl file whose step is at most `step`."""
    return [record for record in read_metrics(path) if isinstance(at := record.get('step'), int) and at <= step]


def cut_back(path: Path, step: int) -> None:
    """Removes the records after `step` from the file: the run continues from there and writes them again."""
    kept = up_to(path, step)
    write_text(path, ''.join(json.dumps(record) + '\n' for record in kept))


def best_of_phases(
    history: list[dict[str, Any]], role: str, metric: str, *, larger: bool = True
) -> list[dict[str, Any]]:
    """Returns the best evaluation of each phase.

    Args:
      history: evaluations, each with 'split', 'phase' and the metric.
      role: split whose evaluations count.
      metric: name of the selection metric.
      larger: whether a larger value is better.
    """
    sign = 1 if larger else -1
    phases: dict[int, list[dict[str, Any]]] = {}
    for entry in history:
        if entry['split'] == role:
            phases.setdefault(entry['phase'], []).append(entry)
    return [max(entries, key=lambda entry: sign * entry[metric]) for _, entries in sorted(phases.items())]
