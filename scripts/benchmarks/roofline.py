"""Computes how many images a second a GPU can train or evaluate at most: the roofline of each step, without a GPU.

    python scripts/benchmarks/roofline.py --output docs/results/roofline.jsonl

The step is traced as for a GPU. Each convolution and each matrix product takes the longer of two times: its operations
at the GPU's peak, and its bytes (inputs and output once) at the memory's bandwidth. Each reduction, such as
BatchNorm's, reads its input once. The optimizer reads and writes its state once. All other work is taken to be fused
into these at no cost, so no program of the same operations is faster. Peaks are those of the vendor's data sheets,
dense; float32 is TF32, as cuDNN computes it by default. `PUBLISHED` holds measurements of others for comparison.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jaxprs

from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import sharding
from fer_jax.inference.eval_step import eval_step
from scripts.benchmarks import steps_jax

CASES = ('resnet18@64x256', 'resnet50@224x256', 'efficientnet_lite0@112x256', 'vgg16@224x128')
PARTS = ('train', 'infer')
DTYPES = ('float32', 'bfloat16')
PRODUCTS = ('conv_general_dilated', 'dot_general')
SMALLEST_REDUCTION = 1 << 16  # elements; smaller ones are of losses and norms


class Gpu(NamedTuple):
    """Peaks of a GPU: operations a second by dtype, and bytes a second of its memory."""

    flops: dict[str, float]
    bandwidth: float


GPUS = {
    'A100 80 GB SXM': Gpu({'float32': 156e12, 'bfloat16': 312e12}, 2.04e12),
    'H100 SXM': Gpu({'float32': 495e12, 'bfloat16': 989e12}, 3.35e12),
    'H200 SXM': Gpu({'float32': 495e12, 'bfloat16': 989e12}, 4.8e12),
}
# NVIDIA DeepLearningExamples, ResNet50 v1.5 for PyTorch (container 21.03), one GPU of a DGX A100 80 GB
PUBLISHED = {
    ('resnet50@224x256', 'train', 'float32', 'A100 80 GB SXM'): 938,
    ('resnet50@224x256', 'train', 'bfloat16', 'A100 80 GB SXM'): 2470,
}


class Work(NamedTuple):
    """Holds the cost of one operation: arithmetic operations, and bytes that it reads and writes."""

    flops: float
    bytes: float


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', default=','.join(CASES), help='network@sizexbatch, separated by commas')
    parser.add_argument('--output', type=Path, help='.jsonl to write')
    arguments = parser.parse_args(argv)
    rows = []
    for case in arguments.cases.split(','):
        for part in PARTS:
            for dtype in DTYPES:
                step = work_of_step(case, part, dtype)
                rows += [bound(case, part, dtype, gpu, step) for gpu in GPUS]
    text = table(rows)
    if arguments.output:
        arguments.output.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    print(text)
    return 0


def work_of_step(case: str, part: str, dtype: str) -> list[Work]:
    """Traces a step of 'train' or 'infer', and lists the work of its operations."""
    network, _, shape = case.partition('@')
    size, batch = (int(number) for number in shape.split('x'))
    given = argparse.Namespace(network=network, size=size, batch=batch, dtype=dtype, part=part, contender='fer_jax')
    with mock.patch.object(jax, 'default_backend', lambda: 'gpu'):  # lax's form of convolutions
        built = steps_jax.network_of(given)
        images = {
            'x': jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
            'y': jax.ShapeDtypeStruct((batch,), jnp.int32),
            'id': jax.ShapeDtypeStruct((batch,), jnp.int32),
            'weight': jax.ShapeDtypeStruct((batch,), jnp.float32),
        }
        if part == 'infer':
            traced = jax.make_jaxpr(lambda variables, batch: eval_step(variables, batch, network=built))(
                built.variables, {name: images[name] for name in ('x', 'id')}
            )
            return list(operations(traced.jaxpr, dtype))
        mesh = sharding.make_mesh(1)
        start = steps_jax.training(given, built, mesh, frozen=False, narrow=False)
        traced = jax.make_jaxpr(start.step)(start.state, start.fixed, {PRIMARY: {}}, {PRIMARY: images})
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(start.state))
    gradient = sum(leaf.nbytes for leaf in jax.tree.leaves(start.state.trainable))
    return [*operations(traced.jaxpr, dtype), Work(0.0, 2 * state + gradient)]


def operations(jaxpr: Any, dtype: str) -> Iterator[Work]:
    """Yields the work of the convolutions, matrix products and large reductions of a jaxpr and of those inside it.

    Args:
      dtype: of maps in memory; a reduction converts what it reads.
    """
    itemsize = jnp.dtype(dtype).itemsize
    for equation in jaxpr.eqns:
        inputs = [variable.aval for variable in equation.invars]
        output = equation.outvars[0].aval
        name = equation.primitive.name
        if name in PRODUCTS:
            yield Work(product_flops(equation), sum(map(size_of, (*inputs[:2], output))))
        elif name.startswith('reduce_') and inputs[0].size >= SMALLEST_REDUCTION:
            yield Work(inputs[0].size, inputs[0].size * itemsize)
        for inner in jaxprs_of(equation):
            yield from operations(inner, dtype)


def jaxprs_of(equation: Any) -> Iterator[Any]:
    """Yields the jaxprs that an equation calls; of alternatives, such as the branches of a cond, the first."""
    for value in equation.params.values():
        inner = value[0] if isinstance(value, tuple) and value else value
        if isinstance(inner, jaxprs.ClosedJaxpr):
            yield inner.jaxpr
        elif isinstance(inner, jaxprs.Jaxpr):
            yield inner


def product_flops(equation: Any) -> float:
    """Returns the multiplications and additions of a convolution or a matrix product, zeros of padding included."""
    left, right = (variable.aval for variable in equation.invars[:2])
    output = equation.outvars[0].aval
    if equation.primitive.name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        return 2.0 * output.size * math.prod(left.shape[axis] for axis in contracted)
    numbers = equation.params['dimension_numbers']
    window = math.prod(right.shape[axis] for axis in numbers.rhs_spec[1:])
    # a dilated input is mostly zeros, which no kernel multiplies
    return 2.0 * output.size * window / math.prod(equation.params['lhs_dilation'])


def size_of(array: Any) -> float:
    return float(array.size * np.dtype(array.dtype).itemsize)


def bound(case: str, part: str, dtype: str, name: str, step: list[Work]) -> dict[str, Any]:
    """Returns the largest rate of a step on a GPU, and the share of its time in which memory is what limits it."""
    gpu, batch = GPUS[name], int(case.rpartition('x')[2])
    times = [(work.flops / gpu.flops[dtype], work.bytes / gpu.bandwidth) for work in step]
    seconds = sum(map(max, times))
    row = {
        'case': case,
        'part': part,
        'dtype': dtype,
        'gpu': name,
        'computed': True,
        'gflops_per_image': round(sum(work.flops for work in step) / batch / 1e9, 3),
        'mbytes_per_image': round(sum(work.bytes for work in step) / batch / 1e6, 3),
        'images_per_second': round(batch / seconds),
        'memory_share': round(sum(memory for compute, memory in times if memory > compute) / seconds, 3),
    }
    measured = PUBLISHED.get((case, part, dtype, name))
    return row | ({'published': measured} if measured else {})


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a step, a column a GPU."""
    lines = [f'| step | GFLOP an image | MB an image | {" | ".join(GPUS)} |', '|---' * (3 + len(GPUS)) + '|']
    for first in range(0, len(rows), len(GPUS)):
        of_step = rows[first : first + len(GPUS)]
        cells = []
        for row in of_step:
            text = f'{row["images_per_second"]:,} ({row["memory_share"]:.0%} memory)'
            if 'published' in row:
                share = row['published'] / row['images_per_second']
                text += f'; published: {row["published"]:,}, {share:.0%}'
            cells.append(text)
        row = of_step[0]
        lines.append(
            f'| {row["case"]}, {row["part"]}, {row["dtype"]} | {row["gflops_per_image"]:.2f} | '
            f'{row["mbytes_per_image"]:.1f} | {" | ".join(cells)} |'
        )
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
