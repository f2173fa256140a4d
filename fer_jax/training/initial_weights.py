"""Where a run's first parameters come from: fresh, converted weights, or another run."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import NamedSharding

from fer_jax import pretrained
from fer_jax.data.dataset import Split
from fer_jax.distributed import processes
from fer_jax.distributed.sharding import put
from fer_jax.errors import UserError
from fer_jax.models.network import Network
from fer_jax.models.parameters import Flat, Variables, stage_of
from fer_jax.pretrained import Preprocessing, Weights
from fer_jax.runs import restore
from fer_jax.runs.restore import weights_of_run
from fer_jax.utils import cache
from fer_jax.utils.paths import user_path

log = logging.getLogger('fer_jax')
STATISTICS_SAMPLE = 2048


def source(weights: str, model: str, *, partial: bool = False) -> Weights | None:
    """Loads the weights that `model.weights` names.

    Args:
      weights: 'scratch', the workdir of a run, or what `pretrained.resolve` accepts.
      model: name of the network that is trained.
      partial: accept the weights of a run or a file although they are another network's.

    Returns:
      The weights; None for 'scratch'.

    Raises:
      UserError: they cannot be found, or are another model's.
    """
    if weights == 'scratch':
        return None
    if (restore.resolve_workdir(weights) / 'checkpoints').is_dir():
        return weights_of_run(Path(weights), None if partial else model)
    if partial and user_path(weights).is_file():
        return pretrained.load_of_any_network(user_path(weights), model)
    with processes.main_process_first():
        return pretrained.resolve(weights, model, cache=cache.root())


def preprocessing(weights: Weights | None, split: Split, channels: int) -> Preprocessing:
    """Returns the preprocessing of the weights, or computes one from the training split where there are no weights.

    The mean and standard deviation are computed over at most 2,048 evenly spaced training images.

    Args:
      channels: of the network's input; mean and std get one value for each.
    """
    if weights is None:
        index = np.unique(np.linspace(0, len(split.labels) - 1, STATISTICS_SAMPLE).astype(int))
        images = split.read(index) / np.float32(255)
        axes = (0, 1, 2)
        mean, std = images.mean(axes, dtype=np.float64), images.std(axes, dtype=np.float64)
        chosen = Preprocessing(tuple(mean.round(4).tolist()), tuple(np.maximum(std, 1e-3).round(4).tolist()))
    else:
        chosen = weights.preprocessing
    return dataclasses.replace(chosen, mean=_spread(chosen.mean, channels), std=_spread(chosen.std, channels))


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """The values a channel: one is repeated, three become their mean in a grey network."""
    if len(values) == channels:
        return values
    return values * channels if len(values) == 1 else (float(np.mean(values)),) * channels


def agreeing(weights: Weights, network: Network) -> Weights:
    """Selects the entries of another network's weights that have the same path and shape in this network.

    The head is left out. The metadata gain 'taken', all selected paths, and 'of', the name of the other network.

    Raises:
      UserError: no parameter agrees.
    """

    def take(given: Mapping[str, Any], wanted: Flat) -> dict[str, Any]:
        paths = [path for path in given if path in wanted and not path.startswith('head.')]
        return {path: leaf for path in paths if (leaf := given[path]).shape == wanted[path].shape}

    params, stats = take(weights.params, network.params), take(weights.stats, network.batch_stats)
    if not params:
        raise UserError(f'model.partial: nothing of {weights.model} fits {network.spec.name}; choose nearer relatives')
    taken = {'taken': ', '.join((*params, *stats)), 'of': weights.model}
    return dataclasses.replace(weights, params=params, stats=stats, metadata=weights.metadata | taken)


def taken_by_stage(network: Network, weights: Weights) -> str:
    """Returns how many parameters of each stage `weights` provide, as 'stem 3 of 3, layer1 12 of 18, ...'."""
    has, taken = (
        Counter(stage_of(path, network.stages) for path in paths) for paths in (network.params, weights.params)
    )
    return ', '.join(f'{stage} {taken[stage]} of {has[stage]}' for stage in network.stages if has[stage])


def initial(
    network: Network, weights: Weights | None, seed: int, sharding: NamedSharding, *, partial: bool = False
) -> Variables:
    """Makes the variables of step 0 on all devices.

    Args:
      weights: all entries but the head's are used; with `partial` some of the network's may be missing.
    """
    if weights is None or partial:
        params, stats = network.init(seed)
        if weights is not None:
            params, stats = params | dict(weights.params), stats | dict(weights.stats)
        return put(Variables(params, stats), sharding)
    prefixes = pretrained.fresh_prefixes(network.params, weights)
    if len(prefixes) > 1:
        log.warning('the weights have no fc6 and fc7, which start fresh as the head does; model.head=mlp needs neither')
    fresh = network.init(seed, 'head.' if len(prefixes) == 1 else '').params
    fresh = {path: leaf for path, leaf in fresh.items() if path.startswith(prefixes)}
    own = Variables(network.params | fresh, network.batch_stats)
    return pretrained.fill(own, weights, head=False, sharding=sharding)
