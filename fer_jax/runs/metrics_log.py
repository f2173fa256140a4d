"""What a run writes while it goes: metrics.jsonl, timing.jsonl, TensorBoard files, a progress bar."""

import json
from pathlib import Path
from typing import Any

from fer_jax.utils.atomic_files import write_text


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl file, up to the first line that is none: a kill may have cut off the last."""
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
    """Those of steps up to `step`."""
    return [record for record in read_metrics(path) if isinstance(at := record.get('step'), int) and at <= step]


def cut_back(path: Path, step: int) -> None:
    """Drops the records after `step`: the run goes on from there and will write them again."""
    kept = up_to(path, step)
    write_text(path, ''.join(json.dumps(record) + '\n' for record in kept))


def best_of_phases(
    history: list[dict[str, Any]], role: str, metric: str, *, larger: bool = True
) -> list[dict[str, Any]]:
    """The best evaluation of each phase, by the selecting metric, of which `larger` values are better or smaller."""
    sign = 1 if larger else -1
    phases: dict[int, list[dict[str, Any]]] = {}
    for entry in history:
        if entry['split'] == role:
            phases.setdefault(entry['phase'], []).append(entry)
    return [max(entries, key=lambda entry: sign * entry[metric]) for _, entries in sorted(phases.items())]
