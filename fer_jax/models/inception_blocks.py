"""What the two Inception-ResNets (Szegedy et al. 2016) are made of, under timm's and facenet-pytorch's names."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fer_jax.models.kernels import Kernels
from fer_jax.models.layers import BatchNorm, conv
from fer_jax.models.stages import Staged

Size = int | tuple[int, int]
# For each branch its layers: width, kernel and stride (1 if left out)
Chains = Sequence[Sequence[tuple[int, Size] | tuple[int, Size, int]]]

torch_kernel = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')  # U(-b, b), b = 1 / sqrt(fan in)


class ConvBN(nnx.Module):
    """A convolution, BatchNorm with eps 1e-3, and ReLU; `padding` as in `layers.conv`."""

    def __init__(
        self,
        features_in: int,
        features_out: int,
        size: Size,
        *,
        stride: int = 1,
        padding: int | None = None,
        **shared: Any,
    ):
        self.conv = conv(
            features_in, features_out, size, stride=stride, padding=padding, kernel_init=torch_kernel, **shared
        )
        self.bn = BatchNorm(features_out, eps=1e-3)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return nnx.relu(self.bn(self.conv(x), train=train))


class Branches(nnx.Module):
    """Parallel chains of `ConvBN`, branch0, branch1, ...; strided layers have no padding.

    A branch of one layer is that layer, a longer one a list, as the sources name them.
    """

    def __init__(self, features_in: int, chains: Chains, **shared: Any):
        self.count, self.features = len(chains), 0
        for index, chain in enumerate(chains):
            features, layers = features_in, []
            for width, size, *strides in chain:
                strided = {'stride': strides[0], 'padding': 0} if strides else {}
                layers.append(ConvBN(features, width, size, **strided, **shared))
                features = width
            setattr(self, f'branch{index}', layers[0] if len(layers) == 1 else nnx.List(layers))
            self.features += features

    def branches(self, x: jax.Array, *, train: bool) -> list[jax.Array]:
        """Returns the output of each chain for x [B, H, W, C]."""
        results = []
        for index in range(self.count):
            branch, y = getattr(self, f'branch{index}'), x
            for layer in [branch] if isinstance(branch, ConvBN) else branch:
                y = layer(y, train=train)
            results.append(y)
        return results


class Reduction(Branches):
    """Branches that halve the map, with a parallel max-pool: Reduction-A and -B, the sources' mixed_6a and 7a."""

    def __init__(self, features_in: int, chains: Chains, *, kernels: Kernels, **shared: Any):
        super().__init__(features_in, chains, kernels=kernels, **shared)
        self.max_pool = kernels.max_pool
        self.features += features_in

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return jnp.concatenate([*self.branches(x, train=train), self.max_pool(x, 3, 2, 0)], axis=-1)


class Residual(Branches):
    """A residual block: x + scale * (1x1 convolution of the branches), with ReLU unless it is the network's last."""

    def __init__(self, features_in: int, chains: Chains, *, scale: float, rectified: bool = True, **shared: Any):
        super().__init__(features_in, chains, **shared)
        self.scale, self.rectified = scale, rectified
        self.conv2d = conv(self.features, features_in, 1, bias=True, kernel_init=torch_kernel, **shared)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x + self.scale * self.conv2d(jnp.concatenate(self.branches(x, train=train), axis=-1))
        return nnx.relu(y) if self.rectified else y


class InceptionResNet(Staged):
    """The common part of both networks: the layers conv2d_1a to conv2d_4a.

    They map an image of side n to 192 channels of about n / 4.
    """

    stages: Mapping[str, tuple[str, ...]]
    min_size = 75  # leaves one pixel behind the strided layers, which have no padding

    def __init__(self, channels: int, *, kernels: Kernels, **shared: Any):
        shared = {'kernels': kernels, **shared}
        self.max_pool = kernels.max_pool
        self.conv2d_1a = ConvBN(channels, 32, 3, stride=2, padding=0, **shared)
        self.conv2d_2a = ConvBN(32, 32, 3, padding=0, **shared)
        self.conv2d_2b = ConvBN(32, 64, 3, **shared)
        self.conv2d_3b = ConvBN(64, 80, 1, **shared)
        self.conv2d_4a = ConvBN(80, 192, 3, padding=0, **shared)

    def stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        for layer in (self.conv2d_1a, self.conv2d_2a, self.conv2d_2b):
            x = layer(x, train=train)
        x = self.max_pool(x, 3, 2, 0)
        return self.conv2d_4a(self.conv2d_3b(x, train=train), train=train)

    def blocks(self, stage: str, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the modules of a stage one after the other."""
        for name in self.stages[stage]:
            module = getattr(self, name)
            for block in module if isinstance(module, nnx.List) else [module]:
                x = block(x, train=train)
        return x
