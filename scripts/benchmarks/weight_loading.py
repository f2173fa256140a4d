"""What it takes to bring a ResNet-50's weights from a file to the device, beside torchvision's usual way.

    python scripts/benchmarks/weight_loading.py --rounds 5 --out docs/results/load_cpu.jsonl

Both read a file of random weights: fer_jax a .safetensors, torch a .pth into a network made before. Every measurement
runs in a process of its own, in alternating rounds, after imports and, for fer_jax, after the network's shapes are
known. Peak memory is the growth of the resident set at its highest, over the size of the weights.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

NETWORK = 'resnet50'
CLASSES = 1000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--out', type=Path, help='append one JSON line a measurement')
    parser.add_argument('--contender', choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.contender:
        print(json.dumps(measure(CONTENDERS[arguments.contender](arguments.folder))))
        return 0
    figures: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for number in range(arguments.rounds):
            for contender in CONTENDERS:
                command = [sys.executable, __file__, '--contender', contender, '--folder', folder]
                record = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                figures[contender].append(record)
                if arguments.out:
                    with arguments.out.open('a') as file:
                        row = {'part': 'load', 'round': number, 'contender': contender, **record}
                        file.write(json.dumps(row) + '\n')
    for contender, records in figures.items():
        middle = {key: statistics.median(record[key] for record in records) for key in records[0]}
        print(
            f'{contender:<8} {middle["cpu_seconds"]:.2f} CPU-seconds, {middle["seconds"]:.2f} s, '
            f'{middle["peak"] / size():.2f} times the weights in memory'
        )
    return 0


def write(folder: Path) -> None:
    """The same random weights for both."""
    import torch

    from fer_jax.pretrained import Preprocessing, convert, save
    from tests.torch_reference import torchvision_model

    state = torchvision_model(NETWORK, CLASSES).state_dict()
    torch.save(state, folder / 'weights.pth')
    entries = {name: leaf.numpy() for name, leaf in state.items()}
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3)
    save(folder / 'weights.safetensors', convert(entries, NETWORK, metadata={}, preprocessing=preprocessing))


def with_fer_jax(folder: Path) -> Callable[[], object]:
    import jax

    from fer_jax import pretrained
    from fer_jax.data.tasks import PRIMARY
    from fer_jax.models.network import ModelSpec, build

    network = build(ModelSpec(NETWORK, {PRIMARY: tuple(map(str, range(CLASSES)))}, 224))
    jax.device_put(np.zeros(1)).block_until_ready()

    def run() -> object:
        weights = pretrained.load(folder / 'weights.safetensors', NETWORK)
        return jax.block_until_ready(pretrained.fill(network.variables, weights, head=True))

    return run


def with_torch(folder: Path) -> Callable[[], object]:
    import torch

    from tests.torch_reference import torchvision_model

    model = torchvision_model(NETWORK, CLASSES)

    def run() -> object:
        model.load_state_dict(torch.load(folder / 'weights.pth', weights_only=True))
        return model

    return run


CONTENDERS = {'fer_jax': with_fer_jax, 'torch': with_torch}


def measure(run: Callable[[], object]) -> dict[str, float]:
    Path('/proc/self/clear_refs').write_text('5')  # the highest resident set so far is forgotten
    before, started, cpu = resident('VmRSS'), time.perf_counter(), time.process_time()
    kept = run()
    figures = {'cpu_seconds': time.process_time() - cpu, 'seconds': time.perf_counter() - started}
    figures['peak'] = resident('VmHWM') - before
    del kept
    return figures


def resident(field: str) -> int:
    """Bytes, by /proc/self/status."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return 1024 * int(line.split()[1])
    raise KeyError(field)


def size() -> int:
    """Bytes of the weights."""
    from fer_jax.pretrained.convert import expected

    return sum(4 * leaf.size for tree in expected(NETWORK, CLASSES) for leaf in tree.values())


if __name__ == '__main__':
    sys.exit(main())
