"""Speed against PyTorch, on the same machine in the same run.

    python scripts/benchmarks/run.py train --threads 1 --out docs/results/train_cpu_1_thread.jsonl
    python scripts/benchmarks/run.py train --cases resnet50@224x256 --dtype bfloat16     # on a GPU

| part | what |
|---|---|
| train, frozen, infer | steps of all parameters, of the head alone, of none, on one batch that lies on the device |
| guard | training steps that look whether all numbers are finite before they update, and without that |
| pipeline | training steps on FER2013's shapes: from the device, on one batch, without a host; from a DataLoader |
| data | images from files or memory until they lie ready for a step |
| startup | seconds from the command to the end of the first step, with and without compiled programs kept from before |
| memory | highest memory of a training step: plain, stages computed again, frozen kernels in bfloat16 |
| scaling | training steps on 1, 2, 4 ... cores, or devices |

Every measurement runs in a process of its own, in alternating rounds; a ratio is one of medians, beside the least and
the largest of a round. The same network, batch, precision, augmentation and optimizer on both sides. FLOPs are those of
the forward pass, three times where everything trains, against the fastest matrix product measured here. `--threads 1`
gives both one thread and counts images per CPU-second; otherwise both use every core, and images per second count: of
fer_jax one device does, as by default, in a contender of its own a device a core. PyTorch needs torch and torchvision,
for EfficientNet timm; see the extra `parity`.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from scripts.benchmarks import data, startup  # noqa: E402

EACH = ', a device a core'
STEPS = ('fer_jax', f'fer_jax{EACH}', 'PyTorch', 'PyTorch, compiled')
FROZEN = ('fer_jax, frozen', 'fer_jax, frozen in bfloat16', 'PyTorch, frozen')
CONTENDERS = {
    'train': STEPS,
    'frozen': STEPS,
    'infer': STEPS,
    'guard': ('fer_jax', 'fer_jax, unguarded'),
    'pipeline': ('fer_jax', 'fer_jax, one batch', 'fer_jax, one program', 'PyTorch', 'PyTorch, compiled'),
    'data': data.CONTENDERS,
    'startup': startup.CONTENDERS,
    'memory': ('fer_jax', 'fer_jax, recomputed', 'PyTorch', *FROZEN),
    'scaling': ('fer_jax', 'PyTorch'),
}
CASES = {
    'train': 'resnet18@64x128 resnet50@224x8 vgg16@224x4 efficientnet_lite0@96x64 efficientnet_lite0@224x16',
    'frozen': 'resnet18@64x128',
    'guard': 'resnet18@64x128',
    'pipeline': 'resnet18@64x128',
    'memory': 'resnet50@224x16',
    'scaling': 'resnet18@64x128',
    'startup': 'resnet18@64x96',
}
CASES['infer'] = CASES['train']
METRICS = {'startup': 'seconds', 'memory': 'peak_bytes'}  # of which less is better


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=[*CONTENDERS, 'peak'])
    parser.add_argument('--cases', help='NETWORK@PIXELSxBATCH, several by commas; of part data its own')
    parser.add_argument('--contenders', help='by semicolons; all of the part if not given')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=8.0, help='of each measurement, after warming up')
    parser.add_argument('--threads', type=int, default=0, help='1: one thread each; 0: all cores')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16'], default='float32')
    parser.add_argument('--devices', type=int, default=0, help='of fer_jax; 0: all GPUs, of a CPU one')
    parser.add_argument('--images', type=Path, help='a .npy file, uint8 [N, H, W, 1 or 3]; noise if not given')
    parser.add_argument('--out', type=Path, help='append one JSON line a measurement')
    parser.add_argument('--name', default='', help='of this machine or these settings, kept in the JSON lines')
    parser.add_argument('--contender', help=argparse.SUPPRESS)
    parser.add_argument('--case', help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.contender:
        with contextlib.redirect_stdout(sys.stderr):
            figures = measure(arguments)
        json.dump(figures, sys.stdout)
    else:
        compare(arguments)
    return 0


def compare(arguments: argparse.Namespace) -> None:
    """All cases and contenders, round by round, and a table of medians."""
    part = arguments.part
    cases = arguments.cases.split(',') if arguments.cases else CASES.get(part, '').split() or [*data.CASES]
    contenders = arguments.contenders.split(';') if arguments.contenders else CONTENDERS[part]
    if arguments.threads == 1 or gpus():
        contenders = [name for name in contenders if not name.endswith(EACH)]
    figures: dict[tuple[str, str], list[dict[str, Any]]] = {}
    peak = 0.0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if part in ('train', 'frozen', 'infer', 'pipeline'):
            peaks = [in_process(arguments, scratch, 'peak', '', name, 0) for name in ('fer_jax', 'PyTorch')]
            peak = max((peak_flops['flops_per_second'] for peak_flops in peaks if peak_flops), default=0.0)
        for number in range(arguments.rounds):
            for case in cases:
                for devices in counts(arguments) if part == 'scaling' else [arguments.devices]:
                    for contender in contenders:
                        peak_flops = in_process(arguments, scratch, part, case, contender, number, devices)
                        if peak_flops:
                            name = f'{case} on {devices}' if part == 'scaling' else case
                            figures.setdefault((name, contender), []).append(peak_flops)
    print(table(figures, metric_of(arguments), peak, part))


def metric_of(arguments: argparse.Namespace) -> str:
    rate = 'images_per_cpu_second' if arguments.threads == 1 else 'images_per_second'
    return METRICS.get(arguments.part, rate)


def counts(arguments: argparse.Namespace) -> list[int]:
    """1, 2, 4 ... up to all devices, of a CPU to all cores."""
    if arguments.devices:
        return [arguments.devices]
    most = gpus() or len(os.sched_getaffinity(0))
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]


def gpus() -> int:
    return len(list(Path('/proc/driver/nvidia/gpus').glob('*')))


def in_process(
    arguments: argparse.Namespace,
    scratch: Path,
    part: str,
    case: str,
    contender: str,
    number: int,
    devices: int = 0,
) -> dict[str, Any] | None:
    """One measurement, written to `--out`; None where it failed, which is said."""
    here = cores = sorted(os.sched_getaffinity(0))
    environment = dict(os.environ)
    if arguments.threads == 1:
        cores, devices = cores[:1], 1
        flags = ' --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'
        environment |= {'OMP_NUM_THREADS': '1', 'XLA_FLAGS': environment.get('XLA_FLAGS', '') + flags}
    elif not gpus():
        cores = cores[:devices] if part == 'scaling' else cores
        devices = len(cores) if contender.endswith(EACH) else arguments.devices or 1
    images = arguments.images
    if part == 'data':
        images = data.write_images(scratch / case.replace(' ', '_'), *data.CASES[case][:2])
        if case == 'JPEG 224' and contender == 'fer_jax, device':
            return None
    elif part == 'startup':
        images = data.write_images(scratch / 'images', 48, 1)
        environment |= startup.environment(scratch, contender, number)
    command = [sys.executable, __file__, part, '--case', case, '--contender', contender, '--dtype', arguments.dtype]
    command += ['--seconds', str(arguments.seconds), '--threads', str(arguments.threads), '--devices', str(devices)]
    command += ['--images', str(images)] if images else []
    os.sched_setaffinity(0, cores)  # which the process inherits
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    os.sched_setaffinity(0, here)
    if run.returncode:
        print(f'{case}, {contender}: left out, status {run.returncode}', file=sys.stderr)
        return None
    figures = json.loads(run.stdout)
    if arguments.out:
        fields = {'threads': arguments.threads, 'dtype': arguments.dtype, 'name': arguments.name, 'cpu': processor()}
        record = {'part': part, 'case': case, 'contender': contender, 'round': number, **fields, 'cpus': len(cores)}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open('a') as file:
            file.write(json.dumps(record | figures) + '\n')
    return figures


def processor() -> str:
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.machine()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One measurement, in this process."""
    if arguments.part == 'data':
        return data.measure(arguments)
    arguments.network, _, rest = arguments.case.partition('@')
    arguments.size, arguments.batch = map(int, rest.split('x')) if rest else (0, 0)
    if arguments.part == 'startup':
        return startup.measure(arguments)
    if arguments.contender.startswith('fer_jax'):
        from scripts.benchmarks import steps_jax

        return steps_jax.measure(arguments, images_of(arguments))
    from scripts.benchmarks import steps_torch

    return steps_torch.measure(arguments, images_of(arguments))


def images_of(arguments: argparse.Namespace) -> np.ndarray:
    """uint8 [N, H, W, C]: those of a file, else noise; a batch of them, of the pipeline as many as FER2013 has."""
    if arguments.images:
        return np.load(arguments.images)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    if arguments.part == 'pipeline':
        shape = (28_709, 48, 48, 1)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def table(figures: dict[tuple[str, str], list[dict[str, Any]]], metric: str, peak: float, part: str) -> str:
    """Medians, ratios to PyTorch, above 1 where a contender is better, and what else was measured."""
    lines = [f'| {metric} | median [least, most] | to PyTorch [of a round] | of the peak | first step | memory |']
    lines.append('|---|---|---|---|---|---|')
    sign = -1 if metric in METRICS.values() else 1
    for (case, contender), every in figures.items():
        ours = statistics.median(row[metric] for row in every)
        cells = [f'{case}, {contender}', f'{ours:,.4g} {spread([row[metric] for row in every], ",.4g")}', '']
        if peers := [row[metric] for row in figures.get((case, 'PyTorch'), [])]:
            each = [(row[metric] / peer) ** sign for row, peer in zip(every, peers, strict=False)]
            cells[2] = f'{(ours / statistics.median(peers)) ** sign:.2f} {spread(each, ".2f")}'
        flops = max((row.get('forward_flops', 0) for row in figures.get((case, 'fer_jax'), [])), default=0)
        passes = 1 if part in ('infer', 'frozen') else 3
        cells.append(f'{passes * flops * ours / peak:.0%}' if peak and flops else '')
        for key, unit, scale in (('first_seconds', 's', 1), ('peak_bytes', 'GB', 1e9)):
            values = [row[key] for row in every if key in row]
            cells.append(f'{statistics.median(values) / scale:.2f} {unit}' if values else '')
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def spread(values: list[float], form: str) -> str:
    return f'[{min(values):{form}}, {max(values):{form}}]'


if __name__ == '__main__':
    sys.exit(main())
