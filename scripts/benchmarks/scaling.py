"""What data parallelism costs on a cluster, from the collectives of the compiled train step.

    python scripts/benchmarks/scaling.py compile --out docs/results/scaling_collectives.jsonl   # minutes a case, 8 GB
    python scripts/benchmarks/scaling.py predict --collectives docs/results/scaling_collectives.jsonl

`compile` compiles the step of each of CASES for 8 CPU devices, runs nothing, and records every collective of the
optimized program with its bytes, and the FLOPs of a device. `predict` turns them into times on a cluster whose figures
are the arguments below, and prints the tables of docs/results/scaling.md. The global batch grows with the devices.
"""

import argparse
import dataclasses
import functools
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

DEVICES = 8
GPUS = (1, 8, 64, 512)
ENOUGH = 0.9
RECORDED = Path(__file__).parents[2] / 'docs' / 'results' / 'scaling_collectives.jsonl'
FIGURES: tuple[tuple[str, Any, str], ...] = (
    ('flops', 989.0, 'TFLOP/s of a GPU: bfloat16, H100 SXM data sheet'),
    ('mfu', 0.2, "share of them that the step reaches; NVIDIA's MXNet ResNet-50 reaches 0.29 on an A100"),
    ('per_node', 8, 'GPUs a node: DGX H100'),
    ('nvlink', 450.0, 'GB/s of a GPU to the others of its node, one way: H100 data sheet, 900 both ways'),
    ('nic', 50.0, 'GB/s of a network card, one way: NDR InfiniBand, 400 Gb/s'),
    ('nics', 8, 'network cards a node: DGX H100'),
    ('reached', 0.8, 'share of these bandwidths that NCCL reaches'),
    ('launch', 6.8, "microseconds of any collective: NCCL's tuning.cc, tree, LL protocol"),
    ('nvlink_hop', 0.6, 'microseconds a GPU of the node adds, each way: the same'),
    ('network_hop', 5.0, 'microseconds a level of the tree of nodes adds, each way: the same'),
)
ALL, HEAD = ((r'.*', 1.0),), (('head/.*', 1.0), ('.*', 0.0))
# name -> network, head, rates, whether BatchNorm takes the batch's statistics, parallel.optimizer
CASES: dict[str, tuple[str, str, Any, bool, str]] = {
    'ResNet-50, full': ('resnet50', 'linear', ALL, True, 'replicated'),
    'ResNet-50, full, BatchNorm frozen': ('resnet50', 'linear', ALL, False, 'replicated'),
    'ResNet-50, frozen': ('resnet50', 'linear', HEAD, True, 'replicated'),
    'VGG16, full': ('vgg16', 'linear', ALL, True, 'replicated'),
    'VGG16, full, optimizer sharded': ('vgg16', 'linear', ALL, True, 'sharded'),
    'VGG16, frozen': ('vgg16', 'linear', HEAD, True, 'replicated'),
    'VGG16, frozen, fresh 4096-4096 head': ('vgg16', 'mlp', HEAD, True, 'replicated'),
}
KINDS = ('all-reduce', 'reduce-scatter', 'all-gather', 'all-to-all', 'collective-permute')
WIDTHS = {'pred': 1, 'bf16': 2}  # bytes; of the others the name says it
_COLLECTIVE = re.compile(rf'\s*(?:ROOT )?%\S+ = (?P<shape>\((?:[^=]|index=)*\)|\S+) (?P<kind>{"|".join(KINDS)})\(')
_ARRAY = re.compile(r'\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]')


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
      bytes: of the whole array: what is reduced, gathered or scattered, not a device's share.
    """

    kind: str
    bytes: int


def collectives(hlo: str, devices: int) -> list[Collective]:
    """Those of an optimized HLO module's text, as the CPU compiler writes it; one in a loop counts once."""
    result = []
    for line in hlo.splitlines():
        if match := _COLLECTIVE.match(line):
            size = 0
            for kind, shape in _ARRAY.findall(match['shape']):
                width = WIDTHS.get(kind) or int(kind[1:]) // 8
                size += width * math.prod(int(side) for side in shape.split(',') if side)
            result.append(Collective(match['kind'], size * (devices if match['kind'] == 'reduce-scatter' else 1)))
    return result


def compiled(name: str, image_size: int, batch_size: int) -> dict[str, Any]:
    """The record of one of CASES: what its step does, by shapes alone.

    Args:
      batch_size: images a device.
    """
    import jax
    import jax.numpy as jnp

    from configs import default
    from fer_jax.data.tasks import PRIMARY
    from fer_jax.distributed import sharding
    from fer_jax.models.network import ModelSpec, build
    from fer_jax.training import losses, phases, train_state
    from fer_jax.training.objectives import Objective
    from fer_jax.training.train_state import FrozenState, TrainState
    from fer_jax.training.train_step import StepProgram, train_step

    model, head, rates, batchnorm, how = CASES[name]
    network = build(ModelSpec(model, {PRIMARY: tuple('1234567')}, image_size, head=head), 'lax')  # as on GPUs
    whole = DEVICES * batch_size
    fields = json.loads(default.phase(rates=rates).to_json())
    (phase,) = phases.plan([fields], network, augment=default.augment('fer'), examples=whole, batch_size=whole)
    if not batchnorm:
        fixed = phase.partition._replace(stages=frozenset({'head'}))
        phase = dataclasses.replace(phase, partition=fixed)
    mesh = sharding.make_mesh(DEVICES)

    def at(leaf: Any, where: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    def placed(tree: Any, where: jax.sharding.Sharding = sharding.replicated(mesh)) -> Any:  # noqa: B008
        return jax.tree.map(lambda leaf: at(leaf, where), tree)

    def rows(count: int, **kinds: Any) -> dict[str, jax.ShapeDtypeStruct]:
        shapes = {'x': (count, image_size, image_size, 3)}
        return {key: jax.ShapeDtypeStruct(shapes.get(key, (count,)), kind) for key, kind in kinds.items()}

    trainable, frozen = phase.partition.split(network.params)
    state = jax.eval_shape(
        functools.partial(train_state.create, 0, tx=phase.tx, tasks=[PRIMARY]), trainable, network.batch_stats
    )
    cut = sharding.optimizer(mesh, how, state.opt_state)
    places = TrainState(**dict.fromkeys(TrainState._fields, sharding.replicated(mesh)) | {'opt_state': cut})
    begun = placed(state)._replace(opt_state=jax.tree.map(at, state.opt_state, cut))
    device_data = rows(1000, x=jnp.uint8, y=jnp.int32, weight=jnp.float32)
    host = placed(rows(whole, id=jnp.int32, weight=jnp.float32), sharding.batch(mesh))
    objectives = {PRIMARY: Objective(losses.make('cross_entropy'))}
    step = functools.partial(train_step, program=StepProgram(network, phase, objectives, seed=0, guard=0))
    lowered = jax.jit(step, donate_argnums=0, out_shardings=places).lower(
        begun, FrozenState(placed(frozen), {}), {PRIMARY: placed(device_data)}, {PRIMARY: host}
    )
    program = lowered.compile({'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True})
    return {
        'case': name,
        'image_size': image_size,
        'batch_size': batch_size,
        'devices': DEVICES,
        'jax': jax.__version__,
        'backward': 2 / 3 if phase.partition.boundary == next(iter(network.stages)) else 0.0,  # of its FLOPs
        'trainable': sum(leaf.size for leaf in trainable.values()),
        'flops': program.cost_analysis()['flops'],
        'collectives': collectives(program.as_text(), DEVICES),
    }


class Cluster(NamedTuple):
    """A cluster's figures; the flags of `predict`, where their units and sources stand."""

    flops: float
    mfu: float
    per_node: int
    nvlink: float
    nic: float
    nics: int
    reached: float
    launch: float
    nvlink_hop: float
    network_hop: float

    def latency(self, gpus: int) -> float:
        """Seconds of an all-reduce of nothing: through the GPUs of a node in turn and a tree of nodes, and back."""
        if gpus == 1:
            return 0.0
        nodes = -(-gpus // self.per_node)
        hops = (min(gpus, self.per_node) - 1) * self.nvlink_hop + math.log2(nodes) * self.network_hop
        return 1e-6 * (self.launch + 2 * hops)

    def moving(self, size: float, gpus: int, kind: str = 'all-reduce') -> float:
        """Seconds that `size` bytes take on their way around a ring, at its narrowest place, twice in an all-reduce."""
        links = self.nvlink if gpus <= self.per_node else min(self.nvlink, self.nics * self.nic)
        return (2 if kind == 'all-reduce' else 1) * (gpus - 1) / gpus * size / (1e9 * links * self.reached)


class Change(NamedTuple):
    """What one can change: a larger batch, fewer bytes a gradient, gradients sent while others are computed.

    Attributes:
      bucket: bytes that are sent together as soon as they are known; 0 where everything waits for the last gradient.
    """

    batch: int = 1
    width: float = 1.0
    bucket: float = 0.0


def efficiency(record: Mapping[str, Any], cluster: Cluster, gpus: int, change: Change | None = None) -> float:
    """Images a second of each of `gpus`, over those of one alone.

    Compute and all collectives follow each other; in buckets, the gradients but for the last of them go out behind the
    backward pass. Every other collective is waited for: BatchNorm's sums stay apart, also those of the way back, which
    the CPU's compiler sends along with a layer's gradients.
    """
    change = change or Change()
    compute = change.batch * record['flops'] / (1e12 * cluster.flops * cluster.mfu)
    every = [Collective(*collective) for collective in record['collectives']]
    gradients, latency = 4 * record['trainable'], cluster.latency(gpus)
    waited = (len(every) - 1) * latency - cluster.moving(gradients, gpus)
    waited += sum(cluster.moving(collective.bytes, gpus, collective.kind) for collective in every)
    size = change.width * gradients
    sending = latency + cluster.moving(size, gpus)
    if change.bucket:
        last = latency + cluster.moving(min(change.bucket, size), gpus)
        sending += (math.ceil(size / change.bucket) - 1) * latency
        sending = max(last, sending - record['backward'] * compute)
    return compute / (compute + waited + sending)


def predict(records: list[dict[str, Any]], cluster: Cluster, changes: Mapping[str, Change]) -> str:
    """Markdown: what each step sends, its efficiency, and what changes bring where that is not enough."""
    rows = ['| step | trained parameters | GFLOP an image | collectives | of up to 16 kB | MB | by kind |']
    rows += ['|---|---|---|---|---|---|---|']
    for record in records:
        every = [Collective(*collective) for collective in record['collectives']]
        kinds = ', '.join(f'{count} {kind}' for kind, count in Counter(collective.kind for collective in every).items())
        small = sum(collective.bytes <= 16384 for collective in every)
        size = sum(collective.bytes for collective in every)
        rows.append(
            f'| {record["case"]} | {record["trainable"]:,} | {record["flops"] / record["batch_size"] / 1e9:.1f} | '
            f'{len(every)} | {small} | {size / 1e6:.2f} | {kinds} |'
        )
    rows += ['', f'| efficiency, {records[0]["batch_size"]} images a GPU | ' + ' | '.join(map(str, GPUS)) + ' |']
    rows += ['|---' * (len(GPUS) + 1) + '|']
    low = []
    for record in records:
        efficiencies = {gpus: efficiency(record, cluster, gpus) for gpus in GPUS}
        rows.append(f'| {record["case"]} | ' + ' | '.join(f'{share:.0%}' for share in efficiencies.values()) + ' |')
        low += [(record, gpus) for gpus, share in efficiencies.items() if share < ENOUGH]
    rows += ['', '| below ' + f'{ENOUGH:.0%} | as it is | ' + ' | '.join(changes) + ' |']
    rows += ['|---' * (len(changes) + 2) + '|']
    for record, gpus in low:
        shares = [efficiency(record, cluster, gpus, change) for change in (None, *changes.values())]
        rows.append(f'| {record["case"]}, {gpus} GPUs | ' + ' | '.join(f'{share:.0%}' for share in shares) + ' |')
    return '\n'.join(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=['compile', 'predict'])
    parser.add_argument('--out', type=Path, help='compile: append one JSON line a case that it does not hold')
    parser.add_argument('--collectives', type=Path, default=RECORDED, help='predict: what compile wrote')
    parser.add_argument('--image_size', type=int, default=224, help='compile: pixels')
    parser.add_argument('--batch_size', type=int, default=64, help='compile: images a GPU')
    for name, default, text in FIGURES:
        parser.add_argument(f'--{name}', type=type(default), default=default, help=f'predict: {text} (%(default)s)')
    parser.add_argument('--larger', type=int, default=4, help='predict: times as many images a GPU (%(default)s)')
    parser.add_argument('--bucket', type=float, default=30.0, help="predict: MiB a bucket, XLA's default on GPUs")
    arguments = parser.parse_args(argv)
    if arguments.part == 'predict':
        records = [json.loads(line) for line in arguments.collectives.read_text().splitlines()]
        cluster = Cluster(*(getattr(arguments, name) for name, *_ in FIGURES))
        larger, bucket = arguments.larger, arguments.bucket * 2**20
        changes = {
            f'{larger} x the batch': Change(batch=larger),
            'bfloat16 gradients': Change(width=0.5),
            f'buckets of {arguments.bucket:.0f} MiB': Change(bucket=bucket),
            'all three': Change(larger, 0.5, bucket),
        }
        print(predict(records, cluster, changes))
        return 0
    import jax

    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', DEVICES)
    there = arguments.out.read_text() if arguments.out and arguments.out.exists() else ''
    done = {json.loads(line)['case'] for line in there.splitlines()}
    for name in CASES:
        if name not in done:
            line = json.dumps(compiled(name, arguments.image_size, arguments.batch_size))
            print(line[:200], flush=True)
            if arguments.out:
                with arguments.out.open('a') as file:
                    file.write(line + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
