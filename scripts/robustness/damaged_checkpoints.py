"""Damages one file of the newest of two checkpoints of a ResNet-18, and opens them as a run does.

Part of scripts/robustness/kills.py.
"""

import json
import logging
import logging.handlers
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from fer_jax.models.network import ModelSpec, build
from fer_jax.runs import checkpoints, metrics_log
from fer_jax.training import train_state
from fer_jax.training.train_state import FrozenState
from fer_jax.utils import progress

SORTS = ('flipped bit', 'truncated', 'deleted', 'zeroed page')
SPEC = ModelSpec('resnet18', {'primary': tuple('abcdefg')}, 48)


def append(path: Path, record: Mapping[str, Any]) -> None:
    with path.open('a') as file:
        file.write(json.dumps(record) + '\n')


def flips(work: Path, output: Path, count: int, seed: int) -> int:
    """Damages `count` copies of a run by each of SORTS; returns the exit status."""
    stored = work / 'stored'
    if not (stored / 'checkpoints' / '2.manifest.json').exists():
        shutil.rmtree(stored, ignore_errors=True)
        store_two_steps(stored)
    good = checkpoints.digest(stored / 'checkpoints' / '1')
    lines = metrics_log.read_metrics(output)
    with progress.bar(None, 'flips', count * len(SORTS), unit='', delay=0, initial=len(lines)) as bar:
        for trial in range(len(lines), count * len(SORTS)):
            sort = SORTS[trial % len(SORTS)]
            copy = work / 'damaged'
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(stored, copy, copy_function=os.link)
            done = damage(copy / 'checkpoints', sort, np.random.default_rng([seed, trial]))
            lines.append({'trial': trial, 'sort': sort, **done, 'wrong': unnoticed(copy, done['file'], good)})
            append(output, lines[-1])
            bar.update()
    print('| damage | trials | found, named, the older step used |\n|---|---|---|')
    for sort in SORTS:
        own = [line for line in lines if line['sort'] == sort]
        print(f'| {sort} | {len(own)} | {sum(not line["wrong"] for line in own)} |')
    wrong = [line for line in lines if line['wrong']]
    print(*wrong, sep='\n')
    return int(bool(wrong))


def store_two_steps(workdir: Path) -> None:
    """Steps 1 and 2 of a ResNet-18 of seven classes, with a momentum that is not zero."""
    network, random = build(SPEC), np.random.default_rng(0)

    def filled(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), tree)

    store = checkpoints.Checkpoints(workdir, SPEC)
    for step in (1, 2):
        tx = optax.sgd(0.1, momentum=0.9)
        state = train_state.create(step, filled(network.params), filled(network.batch_stats), tx)
        store.save(
            train_state.to_items(state._replace(opt_state=filled(state.opt_state)), FrozenState({}, {})), 1 / step
        )
    store.wait()
    store.close()


def damage(directory: Path, sort: str, random: np.random.Generator) -> dict[str, Any]:
    """Does one harm to step 2: half the time in a file chosen by its size, otherwise in any file."""
    files = sorted(path for path in (directory / '2').rglob('*') if path.is_file() and path.stat().st_size)
    files.append(directory / '2.manifest.json')
    sizes = np.array([path.stat().st_size for path in files])
    path = files[random.choice(len(files), p=sizes / sizes.sum() if random.random() < 0.5 else None)]
    data = bytearray(path.read_bytes())
    path.unlink()  # it is a link to the good one
    bit = int(random.integers(8 * len(data)))
    if sort == 'flipped bit':
        data[bit // 8] ^= 1 << bit % 8
    elif sort == 'truncated':
        del data[bit // 8 :]
    elif sort == 'zeroed page':
        first = bit // 8 // 4096 * 4096
        first = first if any(data[first : first + 4096]) else 0  # a page of zeros already
        data[first : first + 4096] = bytes(len(data[first : first + 4096]))
    if sort != 'deleted':
        path.write_bytes(data)
    return {'file': str(path.relative_to(directory)), 'bit': bit}


def unnoticed(workdir: Path, file: str, good: str) -> str:
    """What went wrong when a run opened the damaged checkpoints, '' where nothing did."""
    heard = logging.handlers.BufferingHandler(100)
    logging.getLogger('fer_jax').addHandler(heard)
    try:
        store = checkpoints.Checkpoints(workdir, SPEC)
        step = store.latest_step()
        store.close()
    finally:
        logging.getLogger('fer_jax').removeHandler(heard)
    text = ' '.join(record.getMessage() for record in heard.buffer)
    name = 'manifest' if file.endswith('.manifest.json') else f'{file.removeprefix("2/")} is'
    if step != 1:
        return f'step {step} is used'
    if 'checkpoints/2 is left out' not in text or name not in text:
        return f'not named: {text}'
    return '' if checkpoints.digest(workdir / 'checkpoints' / '1') == good else 'the older step is not what it was'
