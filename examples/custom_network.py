"""Train a network of your own in two phases: python custom_network.py data runs/tiny

A network is a table of stages. Phases freeze stages by name, and the feature cache stores their outputs. Checkpoints,
reports and export work as for the networks of fer_jax.
"""

import sys
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

import fer_jax
from fer_jax.config import defaults
from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import BatchNorm, Head, conv
from fer_jax.models.stages import Staged


class TinyNet(Staged):
    """Three convolutions, a mean over the map, and a linear head."""

    stages: Mapping[str, tuple[str, ...]] = {  # stage -> prefixes of its parameters
        'stem': ('conv1', 'bn1'),
        'body': ('conv2', 'bn2', 'conv3', 'bn3'),
        'pool': (),
        'head': ('head',),
    }

    def __init__(
        self,
        name: str,
        *,
        classes: Mapping[str, int],
        channels: int,
        head: str,
        dropout: float,
        dtype: Any,
        kernels: Kernels,
        rngs: nnx.Rngs,
    ):
        shared = {'dtype': dtype, 'kernels': kernels, 'rngs': rngs}
        self.conv1, self.bn1 = conv(channels, 16, 3, stride=2, **shared), BatchNorm(16)
        self.conv2, self.bn2 = conv(16, 32, 3, stride=2, **shared), BatchNorm(32)
        self.conv3, self.bn3 = conv(32, 64, 3, stride=2, **shared), BatchNorm(64)
        initializer = nnx.initializers.lecun_normal()
        self.head = Head(
            head, 64, classes, rate=dropout, kernel_init=initializer, bias_init=nnx.initializers.zeros,
            dtype=dtype, rngs=rngs,
        )  # fmt: skip

    def stage(self, name: str, x: jax.Array, *, train: bool, key: jax.Array | None) -> Any:
        """Applies one stage; `head` returns logits {task: float32 [B, classes]}."""
        if name == 'stem':
            return nnx.relu(self.bn1(self.conv1(x), train=train))
        if name == 'body':
            x = nnx.relu(self.bn2(self.conv2(x), train=train))
            return nnx.relu(self.bn3(self.conv3(x), train=train))
        if name == 'pool':
            return x.mean((1, 2))
        return self.head(x, train=train, key=key)


data, workdir = sys.argv[1:]
fer_jax.register_network('tiny', TinyNet)
config = fer_jax.get_config('quickstart')
config.data.dir = data
config.model.name = 'tiny'
config.model.weights = 'scratch'
config.phases = (
    defaults.phase(epochs=10, learning_rate=3e-3),
    defaults.phase(epochs=5, rates=defaults.HEAD_ONLY, learning_rate=1e-3, cache_views=1),
)
results = fer_jax.train(config, workdir)
print(results['splits']['test']['accuracy'])
