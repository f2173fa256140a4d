"""Collectives read from programs whose traffic is known, and efficiencies that can be computed by hand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks import scaling
from scripts.benchmarks.scaling import Change, Cluster, Collective, collectives, efficiency

REPOSITORY = Path(__file__).parents[2]
HLO = """
ENTRY %main (p: f32[2,3]) -> f32[2,3] {
  %all-reduce = (f32[2,3]{1,0}, f32[]{:T(128)}, /*index=2*/bf16[4]{0}, pred[5]{0}) all-reduce(%a, %b, %c, %d)
  %x = f32[2,3]{1,0} get-tuple-element(%all-reduce), index=0, metadata={op_name="y = x all-reduce(z)"}
  %scattered = f32[2]{0} reduce-scatter(%x), replica_groups={{0,1,2,3,4,5,6,7}}
  ROOT %gathered = f32[16]{0} all-gather(%scattered), dimensions={0}
}
"""


def test_collectives_of_a_program_written_by_hand():
    assert collectives(HLO, 8) == [
        Collective('all-reduce', 24 + 4 + 8 + 5),
        Collective('reduce-scatter', 8 * 8),
        Collective('all-gather', 64),
    ]


CODE = """
import json, jax, jax.numpy as jnp
jax.config.update('jax_num_cpu_devices', 8)
from fer_jax.distributed import sharding
from scripts.benchmarks import scaling
mesh = sharding.make_mesh(8)
summed = jax.shard_map(lambda x: jax.lax.psum(x, 'data'), mesh=mesh, in_specs=sharding.batch(mesh).spec,
                       out_specs=sharding.replicated(mesh).spec)
program = jax.jit(summed).lower(jax.ShapeDtypeStruct((8, 3, 5), jnp.float32)).compile().as_text()
scaling.CASES['small'] = ('resnet8_small', 'linear', scaling.ALL, True, 'replicated')
scaling.CASES['small, BatchNorm frozen'] = ('resnet8_small', 'linear', scaling.ALL, False, 'replicated')
records = [scaling.compiled(name, 16, 2) for name in ('small', 'small, BatchNorm frozen')]
from fer_jax.models.network import ModelSpec, build
of = build(ModelSpec('resnet8_small', {'primary': tuple('1234567')}, 16))
stats = sum(leaf.size for leaf in of.batch_stats.values())
print(json.dumps([scaling.collectives(program, 8), records, stats]))
"""


@pytest.mark.slow
def test_collectives_of_programs_whose_traffic_is_known():
    """A psum; a step: gradients, what BatchNorm sends, and the loss, its weight and the hits."""
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(REPOSITORY)}
    done = subprocess.run([sys.executable, '-c', CODE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    psum, (whole, frozen), stats = json.loads(done.stdout.splitlines()[-1])
    assert psum == [['all-reduce', 60]]
    sizes = [size for _, size in frozen['collectives']]
    assert sum(sizes) == 4 * frozen['trainable'] + 12 and max(sizes) == 4 * frozen['trainable']
    assert sum(size for _, size in whole['collectives']) == 4 * (whole['trainable'] + stats) + 12
    assert len(whole['collectives']) > 5 * len(frozen['collectives'])


def test_efficiency_by_hand():
    """One second of compute, a gigabyte of gradients, a gigabyte a second."""
    record = {'flops': 1e12, 'trainable': 250_000_000, 'backward': 0.5, 'collectives': [['all-reduce', 10**9]]}
    cluster = Cluster(1.0, 1.0, 2, 1.0, 0.25, 2, 1.0, 0.0, 0.0, 0.0)
    assert efficiency(record, cluster, 1) == 1
    assert efficiency(record, cluster, 2) == pytest.approx(1 / (1 + 1))
    assert efficiency(record, cluster, 8) == pytest.approx(1 / (1 + 2 * 7 / 8 / 0.5))  # two cards are the narrow place
    assert efficiency(record, cluster, 2, Change(width=0.5)) == pytest.approx(1 / 1.5)
    assert efficiency(record, cluster, 2, Change(batch=3)) == pytest.approx(3 / 4)
    assert efficiency(record, cluster, 2, Change(bucket=1e8)) == pytest.approx(1 / 1.5)  # half is hidden
    assert efficiency(record, cluster, 2, Change(batch=3, bucket=1e8)) == pytest.approx(3 / 3.1)  # all but the last
    waiting, two = cluster._replace(launch=1e5), record | {'collectives': [['all-reduce', 4], ['all-reduce', 10**9]]}
    assert efficiency(two, waiting, 2) == pytest.approx(1 / (1 + 0.1 + 1.1))
    ten = efficiency(two, waiting, 2, Change(bucket=1e8))  # messages, of which one cannot be hidden
    assert ten == pytest.approx(1 / (1 + 0.1 + 2.0 - 0.5))
    assert efficiency(two, waiting, 2, Change(batch=6, bucket=1e8)) == pytest.approx(6 / (6 + 0.1 + 0.2))
    slow = cluster._replace(launch=1e6, nvlink_hop=1e6, network_hop=2e6)
    assert slow.latency(8) == pytest.approx(1 + 2 * (1 + 2 * 2))  # 2 a node, 4 nodes


def test_the_page_says_what_the_command_prints(capsys):
    page = (REPOSITORY / 'docs' / 'results' / 'scaling.md').read_text()
    commands = set(re.findall(r'`python scripts/benchmarks/scaling.py (predict[^`]*)`', page))
    assert len(commands) == 3
    for command in commands:
        assert scaling.main(command.split()) == 0
        printed = capsys.readouterr().out.split('\n\n')
        assert [part for part in printed if part.strip() not in page] == []
