"""Where a run's first parameters come from: fresh, converted weights, or another run."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding

from fer_jax import cache, pretrained
from fer_jax.checkpoints import Checkpoints, read_spec
from fer_jax.data.datasets import Split
from fer_jax.errors import UserError
from fer_jax.network import Network, build
from fer_jax.partition import Flat
from fer_jax.pretrained import Preprocessing, Weights

STATISTICS_SAMPLE = 2048


def source(weights: str, model: str) -> Weights | None:
    """The weights that `model.weights` names; None for 'scratch'.

    Raises:
      UserError: they cannot be found, or are another model's.
    """
    if weights == 'scratch':
        return None
    if (Path(weights) / 'checkpoints').is_dir():
        return _of_run(Path(weights), model)
    return pretrained.resolve(weights, model, cache=cache.root())


def _of_run(workdir: Path, model: str) -> Weights:
    spec = read_spec(workdir)
    if spec.name != model:
        raise UserError(f'model.weights={str(workdir)!r} is a run of {spec.name}, model.name is {model!r}')
    network = build(spec)
    checkpoints = Checkpoints(workdir, spec, read_only=True)
    step = checkpoints.best_step()
    if step is None:
        raise UserError(f'model.weights={str(workdir)!r} holds no evaluated checkpoint yet; let that run go on')
    params, stats = checkpoints.restore_model(step, network.params, network.batch_stats)
    return Weights(
        model=model,
        params={path: np.asarray(leaf) for path, leaf in params.items()},
        stats={path: np.asarray(leaf) for path, leaf in stats.items()},
        preprocessing=Preprocessing(spec.mean, spec.std, spec.order),
        metadata={'source': str(workdir), 'step': str(step)},
    )


def preprocessing(weights: Weights | None, split: Split, channels: int) -> Preprocessing:
    """Mean and std by which images are normalised: the weights' own, else those of the training split.

    The latter are taken over evenly spaced training images, at most 2,048.
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


def initial(network: Network, weights: Weights | None, seed: int, sharding: NamedSharding) -> tuple[Flat, Flat]:
    """(params, batch_stats) of step 0, on all devices."""
    params, stats = network.init(seed)
    if weights is not None:
        params, stats = pretrained.fill(params, stats, weights, head=False)
    return jax.device_put((params, stats), sharding)
