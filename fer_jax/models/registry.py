"""The networks, by name, with fresh parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from fer_jax.config.choices import HEADS, NETWORKS
from fer_jax.errors import UserError
from fer_jax.models import (
    dlib_resnet,
    efficientnet,
    googlenet,
    inception_resnet_v1,
    inception_resnet_v2,
    mobilenet,
    resnet,
    resnet_small,
    resnet_v2,
    vgg,
)
from fer_jax.models import kernels as kernel_forms
from fer_jax.models.layers import Head
from fer_jax.models.stages import read_all
from fer_jax.utils.choices import check_choice

CONSTRUCTORS: dict[str, Any] = {
    **dict.fromkeys(resnet.FORMS, resnet.ResNet),
    **dict.fromkeys(resnet_small.DEPTHS, resnet_small.SmallResNet),
    **dict.fromkeys(resnet_v2.DEPTHS, resnet_v2.ResNetV2),
    **dict.fromkeys((f'{name}{norm}' for name in vgg.DEPTHS for norm in ('', '_bn')), vgg.VGG),
    **dict.fromkeys(efficientnet.FORMS, efficientnet.EfficientNet),
    'inception_resnet_v1': inception_resnet_v1.InceptionResNetV1,
    'inception_resnet_v2': inception_resnet_v2.InceptionResNetV2,
    **dict.fromkeys(mobilenet.WIDTHS, mobilenet.MobileNetV1),
    'dlib_resnet': dlib_resnet.DlibResNet,
    'googlenet': googlenet.GoogLeNet,
}
NAMES = tuple(CONSTRUCTORS)
WITH_STOCHASTIC_DEPTH = (resnet.ResNet, resnet_small.SmallResNet, resnet_v2.ResNetV2, efficientnet.EfficientNet)


def check_name(name: str) -> None:
    """Checks that a network is called `name`.

    Raises:
      UserError: none is; the message has the nearest names.
    """
    check_choice('model.name', name, CONSTRUCTORS, near=2)


def register_network(name: str, constructor: Callable[..., Any]) -> None:
    """Adds a network of your own under the name that `model.name` of a config gives.

    Register it again in every program that loads a run of it.

    Args:
      name: the new name.
      constructor: a subclass of `Staged`, called with the name and the keyword arguments classes, channels, head,
        dropout, dtype, kernels and rngs, see `create`.

    Raises:
      UserError: the name is taken by a network of fer_jax.
    """
    if name in NAMES:
        raise UserError(f'a network called {name!r} comes with fer_jax; choose another name')
    if name not in CONSTRUCTORS:
        NETWORKS.append(name)
    CONSTRUCTORS[name] = constructor


def create(
    name: str,
    *,
    classes: int | Mapping[str, int],
    channels: int = 3,
    head: str = 'linear',
    head_inputs: tuple[str, ...] = (),
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    dtype: Any = jnp.float32,
    kernels: str = 'auto',
    rngs: nnx.Rngs,
) -> Any:
    """Creates a network with fresh parameters, initialised as in its source framework.

    Args:
      name: one of `NAMES`.
      classes: outputs of each task's head; a number means {'primary': number}.
      channels: of the input images, 1 or 3.
      head: 'linear' or 'mlp', see `layers.Head`.
      head_inputs: stages that a linear head reads, see `Staged`; its initialisation is then that of `nnx.Linear`.
      dropout: rate before the linear head.
      stochastic_depth: rate at which the last residual block is left out in training, from 0 for the first; of ResNets
        and EfficientNets.
      dtype: compute type; parameters, BatchNorm statistics and logits are float32.
      kernels: 'auto', 'cpu' or 'lax', see `kernels.choose`.

    Returns:
      A module with `stages` (an ordered table, stage -> parameter-path prefixes) and
      `stage(name, x, *, train, key)`; `run` applies them in order.

    Raises:
      UserError: the name or the head is unknown, a rate is not below 1 or not for this network, or a task's name cannot
        be part of a parameter's path.
    """
    check_name(name)
    if head not in HEADS:
        raise UserError(f'model.head={head!r} is unknown; choose {" or ".join(HEADS)}')
    if not 0 <= dropout < 1:
        raise UserError(f'model.dropout={dropout}; expected a rate from 0 up to, not including, 1')
    family, options = CONSTRUCTORS[name], {}
    if family in WITH_STOCHASTIC_DEPTH:
        options['stochastic_depth'] = stochastic_depth
    if not 0 <= stochastic_depth < 1 or (stochastic_depth and not options):
        raise UserError(
            f'model.stochastic_depth={stochastic_depth} for {name}; expected a rate from 0 up to, not including, 1, '
            'of a ResNet or EfficientNet, and 0 for others'
        )
    counts = {'primary': classes} if isinstance(classes, int) else dict(classes)
    for task in counts:
        if not task.isidentifier() or hasattr(Head, task) or task in Head.RESERVED:
            raise UserError(f'a task cannot be called {task!r}; choose a plain word, such as "valence"')
    network = family(
        name,
        classes=counts,
        channels=channels,
        head=head,
        dropout=dropout,
        dtype=dtype,
        kernels=kernel_forms.choose(kernels),
        rngs=rngs,
        **options,
    )
    if head_inputs:
        if head != 'linear':
            raise UserError(f'model.head_inputs={head_inputs} are for a linear head, model.head is {head!r}')
        features = read_all(network, tuple(head_inputs), channels)
        init = nnx.initializers.lecun_normal()
        network.head = Head(head, features, counts, rate=dropout, kernel_init=init, dtype=dtype, rngs=rngs)
    return network
