"""What checkpoints cost a run, at the size of a ResNet-50, and how long a signal waits for a saved state.

    python scripts/benchmarks/checkpoints.py --out docs/results/checkpoint_cpu.jsonl

Small images keep the steps short; what is saved does not depend on them. `steps`: rounds of steps without a save, and
of as many beside one, in turn, after warming up. What a save costs is the time in which it keeps the loop from going
on, and what the steps beside it take longer; it has to end within them (`within_the_steps`), else take more `--steps`.
`signal`: the command line is sent SIGTERM while it trains; counted is the time to the manifest, by whose writing a
checkpoint counts, and to the end of the process, with exit status 75.
"""

import argparse
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PARTS = ('steps', 'signal')


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', default=','.join(PARTS))
    parser.add_argument('--model', default='resnet50')
    parser.add_argument('--optimizer', default='adamw')
    parser.add_argument('--image_size', type=int, default=32)
    parser.add_argument('--batch_size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=20, help='of each half of a round; a save should end within them')
    parser.add_argument('--out', type=Path, help='append one JSON line a round')
    arguments = parser.parse_args(argv)
    logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax warns of every save without a metric
    measures = {'steps': beside_steps, 'signal': after_signal}
    figures: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder) / 'images', arguments.image_size)
        for part in arguments.parts.split(','):
            for number, record in enumerate(measures[part](arguments, images, Path(folder))):
                kind = {name: getattr(arguments, name) for name in ('model', 'optimizer', 'image_size', 'batch_size')}
                line = {'part': part, 'round': number, **kind, 'cpus': os.cpu_count(), **record}
                figures.setdefault(part, []).append(line)
                if arguments.out:
                    arguments.out.parent.mkdir(parents=True, exist_ok=True)
                    with arguments.out.open('a') as file:
                        file.write(json.dumps(line) + '\n')
    for part, records in figures.items():
        numbers = [name for name, value in records[0].items() if isinstance(value, float)]
        shown = ', '.join(f'{name} {spread([record[name] for record in records])}' for name in numbers)
        print(f'{part}: {shown}')
    return 0


def spread(values: list[float]) -> str:
    return f'{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]'


def write_images(folder: Path, side: int) -> Path:
    """Two class folders of noise, 200 images each."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for name in ('happy', 'sad'):
        (folder / name).mkdir(parents=True)
        for index in range(200):
            pixels = noise.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{index}.png')
    return folder


def overrides(arguments: argparse.Namespace, images: Path) -> dict[str, Any]:
    """Flags of a run of one long phase that trains everything."""
    return {
        'model.name': arguments.model,
        'model.weights': 'scratch',
        'model.image_size': arguments.image_size,
        'data.name': '',
        'data.dir': str(images),
        'data.batch_size': arguments.batch_size,
        'log_every': 1,
        'checkpoint.every': 1e5,
        'phases[0].epochs': 1e5,
        'phases[0].optimizer': arguments.optimizer,
        'phases[0].schedule': 'constant',
        'phases[0].learning_rate': 1e-5,
    }


def beside_steps(arguments: argparse.Namespace, images: Path, work: Path) -> list[dict[str, Any]]:
    """Of each round: seconds a step without and with a save, of the blocking part, and until the save is sealed."""
    from configs import default
    from fer_jax.runs import checksums
    from fer_jax.runs.checkpoints import Checkpoints
    from fer_jax.training import setup, train_state
    from fer_jax.training.phase_program import PhaseProgram

    config = default.get_config()
    for name, value in overrides(arguments, images).items():
        place = config.phases[0] if name.startswith('phases') else config
        place.update_from_flattened_dict({name.removeprefix('phases[0].'): value})
    run = setup.prepare(json.loads(config.to_json()))
    (phase,) = run.phases
    program = PhaseProgram(run, phase)
    state, fixed = program.init_state(0, run.initial())
    take, store = program.step_function(), Checkpoints(work / 'run', run.network.spec)

    def steps() -> float:
        nonlocal state
        begun, first = time.perf_counter(), int(state.step)
        for step in range(first, first + arguments.steps):
            state = take(state, fixed, run.loader.device_data, run.loader.host_batches([step]), 1)
        state.step.block_until_ready()
        return time.perf_counter() - begun

    steps()
    store.save(train_state.to_items(state, fixed))  # the first one makes what later ones find
    store.wait()
    seconds = []
    for _ in range(arguments.rounds):
        alone = steps()
        begun = time.perf_counter()
        store.save(train_state.to_items(state, fixed))
        blocked = time.perf_counter() - begun
        beside = steps()
        store.wait()
        sealed = time.perf_counter() - begun
        seconds.append(
            {
                'step_seconds': alone / arguments.steps,
                'step_seconds_beside': beside / arguments.steps,
                'blocked_seconds': blocked,
                'sealed_seconds': sealed,
                'cost_in_steps': (blocked + beside - alone) / (alone / arguments.steps),
                'megabytes': checksums.size(store.directory / str(int(state.step) - arguments.steps)) / 1e6,
                'within_the_steps': sealed <= blocked + beside + 0.1,
            }
        )
    store.close()
    return seconds


def after_signal(arguments: argparse.Namespace, images: Path, work: Path) -> list[dict[str, Any]]:
    """Of each round: seconds from SIGTERM to the manifest of the saved state, and to the end of the process."""
    command = [sys.executable, '-m', 'fer_jax.main', '--config', 'configs/default.py']
    command += [f'--config.{name}={value}' for name, value in overrides(arguments, images).items()]
    environment = os.environ | {'PYTHONPATH': str(REPOSITORY)}
    seconds = []
    for number in range(arguments.rounds):
        workdir = work / f'signal-{number}'
        with (work / 'log').open('w') as log:
            process = subprocess.Popen(
                [*command, f'--workdir={workdir}'], cwd=REPOSITORY, env=environment, stdout=log, stderr=log
            )
            try:
                while records(workdir) < 5 and process.poll() is None:
                    time.sleep(0.1)
                begun = time.time()
                process.send_signal(signal.SIGTERM)
                status = process.wait(600)
                ended = time.time() - begun
            finally:
                process.kill()
        if status != 75:
            raise SystemExit(f'the run ended with {status}: {(work / "log").read_text()[-2000:]}')
        (manifest,) = (workdir / 'checkpoints').glob('*.manifest.json')
        seconds.append({'saved_seconds': manifest.stat().st_mtime - begun, 'ended_seconds': ended})
    return seconds


def records(workdir: Path) -> int:
    """Lines of the run's timing.jsonl, one a step."""
    path = workdir / 'timing.jsonl'
    return path.read_bytes().count(b'\n') if path.exists() else 0


if __name__ == '__main__':
    sys.exit(main())
