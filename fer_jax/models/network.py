"""A network as a run knows it: what is written beside the weights so that they can be used without the config."""

import dataclasses
import functools
import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fer_jax import models
from fer_jax.distributed import sharding
from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.models.layers import freeze_norms
from fer_jax.models.parameters import Flat, Variables, flatten, merge_module, split_module
from fer_jax.models.preprocessing import Preprocessing

log = logging.getLogger('fer_jax')
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
INIT_OPTIONS = {'xla_backend_optimization_level': '1'}  # a program that runs once: a quarter of the compilation


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The description of a network: everything that a forward pass needs besides the parameters.

    Attributes:
      name: network, one of `models.NAMES`.
      classes: class names of each task, in the order of its logits.
      image_size: side of the square images at evaluation, in pixels.
      channels: 1 (grey) or 3 (RGB) input channels of the stem.
      head: 'linear' or 'mlp'.
      head_inputs: stages that the head reads; () for the last alone.
      dropout: rate before the linear head.
      stochastic_depth: see `models.create`.
      dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
      mean, std: of x / 255, one value a channel.
      order: of a colour network's channels, 'RGB' or 'BGR'; images come as RGB.
      activation: from logits to probabilities: 'softmax', or 'sigmoid' where each class is an attribute of its own.
    """

    name: str
    classes: dict[str, tuple[str, ...]]
    image_size: int
    channels: int = 3
    head: str = 'linear'
    dropout: float = 0.0
    dtype: str = 'float32'
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    order: str = 'RGB'
    activation: str = 'softmax'
    stochastic_depth: float = 0.0
    head_inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f'model.dtype={self.dtype!r} is unknown; choose {" or ".join(DTYPES)}')
        if self.channels not in (1, 3):
            raise UserError(f'model.channels={self.channels}; expected 1 (grey) or 3 (colour)')
        if self.image_size < 8:
            raise UserError(f'model.image_size={self.image_size} is too small; expected at least 8 pixels')

    def create(self, rngs: nnx.Rngs, kernels: str = 'auto') -> nnx.Module:
        """Creates the network with fresh parameters; `kernels` as in `models.kernels.choose`."""
        return registry.create(
            self.name,
            classes={task: len(names) for task, names in self.classes.items()},
            channels=self.channels,
            head=self.head,
            head_inputs=self.head_inputs,
            dropout=self.dropout,
            stochastic_depth=self.stochastic_depth,
            dtype=DTYPES[self.dtype],
            kernels=kernels,
            rngs=rngs,
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + '\n'

    @classmethod
    def from_json(cls, text: str) -> 'ModelSpec':
        fields = json.loads(text)
        fields['classes'] = {task: tuple(names) for task, names in fields['classes'].items()}
        lists = {name: tuple(fields[name]) for name in ('mean', 'std', 'head_inputs') if name in fields}
        return cls(**fields | lists)


@dataclasses.dataclass(frozen=True)
class Network:
    """The static half of a model: its graph and its stage table.

    Attributes:
      remat: stages that are rematerialised: the backward pass keeps their inputs and computes the rest again.
    """

    spec: ModelSpec
    graphdef: nnx.GraphDef
    stages: dict[str, tuple[str, ...]]
    params: dict[str, jax.ShapeDtypeStruct]
    batch_stats: dict[str, jax.ShapeDtypeStruct]
    remat: tuple[str, ...] = ()

    @property
    def variables(self) -> Variables:
        """The shapes of all variables."""
        return Variables(self.params, self.batch_stats)

    def init(self, seed: int, prefix: str = '') -> Variables:
        """Makes fresh variables by the source framework's initialisers: those whose paths begin with `prefix`."""

        @functools.partial(jax.jit, compiler_options=INIT_OPTIONS)
        def make(key: jax.Array) -> Variables:
            _, trees = split_module(self.spec.create(nnx.Rngs(key)))
            kept = ({path: leaf for path, leaf in tree.items() if path.startswith(prefix)} for tree in trees)
            return Variables(*kept)

        return make(jax.random.key(seed))

    def abstract(self, sharding: jax.sharding.Sharding) -> Variables:
        """Returns the shapes of the variables with `sharding`, as the target of a restore."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), self.variables
        )

    def forward(
        self,
        variables: Variables,
        x: jax.Array,
        *,
        start: str | None = None,
        train: frozenset[str] = frozenset(),
        frozen_norms: Collection[str] = (),
        key: jax.Array | None = None,
        tell: str = 'head',
        add: Mapping[str, jax.Array] | None = None,
        seen: dict[str, jax.Array] | None = None,
    ) -> tuple[dict[str, jax.Array], Flat, jax.Array]:
        """Runs the stages from `start` on.

        Args:
          variables: those of stages below `start` may be left out.
          x: float [B, H, W, C], normalised, or activations at `start`.
          train: stages that run in training mode.
          frozen_norms: paths of BatchNorms that use and keep their running statistics in training mode too.
          key: of dropout.
          tell: the stage whose input is returned.
          add: is added to the outputs of these stages, for derivatives with respect to it.
          seen: is filled with the input of each stage.

        Returns:
          Logits {task: float32 [B, classes]}, the given statistics after the pass, and the input of `tell`, [B, ...].
        """
        model = merge_module(self.graphdef, Variables(*map(_filled, variables, self.variables)))
        freeze_norms(model, frozen_norms)
        seen = {} if seen is None else seen
        logits = models.run(model, x, start=start, train=train, key=key, seen=seen, add=add, remat=self.remat)
        after = flatten(nnx.state(model, nnx.BatchStat))
        return logits, {path: after[path] for path in variables.batch_stats}, seen[tell]

    def outputs(self, variables: Variables, x: jax.Array, stages: Collection[str]) -> dict[str, jax.Array]:
        """Returns the outputs of these stages, none of them the head, in evaluation mode; x as in `forward`."""
        model = merge_module(self.graphdef, variables)
        outputs, start, order = {}, None, list(self.stages)
        for stage in order:
            if stage in stages:
                x = models.run(model, x, start=start, stop=stage)
                x = outputs[stage] = model.stage(stage, x, train=False, key=None)
                start = order[order.index(stage) + 1]
        return outputs

    def normalise(self, images: jax.Array) -> jax.Array:
        """Normalises images by the mean and standard deviation of the weights and casts them to the compute dtype.

        A grey image is repeated for the three channels of a colour network; a colour image is converted to its BT.601
        luma for a grey network.

        Args:
          images: float32 [B, H, W, 1 or 3] of 0..255.

        Returns:
          [B, H, W, channels].
        """
        channels = self.spec.channels
        if images.shape[-1] == 3 and channels == 1:
            images = images @ jnp.asarray([[0.299], [0.587], [0.114]], images.dtype)
        preprocessing = Preprocessing(self.spec.mean, self.spec.std, self.spec.order)
        return preprocessing.normalise(images).astype(DTYPES[self.spec.dtype])


def _filled(leaves: Flat, shapes: dict[str, jax.ShapeDtypeStruct]) -> Flat:
    """With zeros, which the compiler drops, in place of leaves that no stage reads."""
    return {
        path: leaves[path] if path in leaves else jnp.zeros(spec.shape, spec.dtype) for path, spec in shapes.items()
    }


def build(spec: ModelSpec, kernels: str = 'auto') -> Network:
    """Builds a network from its spec, with the shapes of its variables only; no parameter is allocated.

    Where the device does not compute in bfloat16, a bfloat16 network is built in float32.

    Args:
      kernels: as in `models.kernels.choose`.

    Raises:
      UserError: the network is unknown, or its images are smaller than it admits.
    """
    models.check_name(spec.name)
    if spec.dtype == 'bfloat16' and not sharding.computes_bfloat16(device := jax.devices()[0]):
        log.warning('%s does not compute in bfloat16: model.dtype=bfloat16 runs in float32 here', device.device_kind)
        spec = dataclasses.replace(spec, dtype='float32')
    models.check_size(models.CONSTRUCTORS[spec.name], spec.image_size)
    model: Any = nnx.eval_shape(lambda: spec.create(nnx.Rngs(0), kernels))
    graphdef, variables = split_module(model)
    return Network(spec, graphdef, dict(model.stages), *variables)
