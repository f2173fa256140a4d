"""From a network of fer_jax back to the names and layout of the framework that its weights came from."""

from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.pretrained.name_tables import keras_names, torch_names
from fer_jax.pretrained.name_tables.keras_names import KerasSource
from fer_jax.pretrained.name_tables.torch_names import first_match
from fer_jax.pretrained.weights import Weights, whole_file

_TORCH_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
_KERAS_LEAVES = {'scale': 'gamma', 'mean': 'moving_mean', 'var': 'moving_variance'}


def targets(model: str) -> list[str]:
    """Returns the names of the formats to which a network can be exported."""
    registry.check_name(model)
    torch = [name for name, source in torch_names.TABLES.get(model, {}).items() if source.back]
    return [*torch, *keras_names.TABLES.get(model, {})]


def torch_state(weights: Weights, target: str) -> dict[str, np.ndarray]:
    """Converts weights to the state dict of `target`, one of `targets`.

    Arrays are float32, `num_batches_tracked` int64 zeros. `convert` restores `weights` exactly from the result.

    Raises:
      UserError: the network cannot be exported to that, or has a head of another kind.
    """
    source = torch_names.TABLES.get(weights.model, {}).get(target)
    if source is None or source.back is None:
        raise _no_target(weights.model, target)
    state: dict[str, np.ndarray] = {}
    for path, leaf in leaves(weights).items():
        module, _, kind = path.rpartition('.')
        name = first_match(source.back, module)
        if name is None or source.module_path(name) != module:
            raise UserError(f'{path} has no place in {target}; only a network with one linear head can be exported')
        if leaf.ndim == 4:
            leaf = leaf.transpose(3, 2, 0, 1)
        elif leaf.ndim == 2:
            side = source.as_convolutions.get(module)
            leaf = leaf.T.reshape(leaf.shape[1], -1, side, side) if side else leaf.T
        state[f'{name}.{_TORCH_LEAVES[kind]}'] = np.ascontiguousarray(leaf)
        if kind == 'var':
            state[f'{name}.num_batches_tracked'] = np.zeros((), np.int64)
    return state


def keras_variables(weights: Weights, target: str) -> dict[str, dict[str, np.ndarray]]:
    """Converts weights to the variables of the Keras network `target`.

    Returns:
      {layer: {variable: array}}, in the order of Keras's layers and their variables.

    Raises:
      UserError: as in `torch_state`; or a BatchNorm has a scale other than 1 where Keras's has none.
    """
    source = keras_names.TABLES.get(weights.model, {}).get(target)
    if source is None:
        raise _no_target(weights.model, target)
    modules = {path: layer for layer, path in source.paths(source.layers).items()}
    variables: dict[str, dict[str, np.ndarray]] = {layer: {} for layer in source.layers}
    for path, leaf in leaves(weights).items():
        module, _, kind = path.rpartition('.')
        if module not in modules:
            raise UserError(f'{path} has no place in {target}; only a network with one linear head can be exported')
        norm = f'{module}.var' in weights.stats
        if norm and kind == 'scale' and not source.scaled:
            if not (leaf == 1).all():
                raise UserError(f'{path} was trained, but the BatchNorms of {target} have no scale; export to torch')
            continue
        name = _KERAS_LEAVES.get(kind, 'beta' if norm else kind)
        variables[modules[module]][name] = _to_keras(path, leaf, source)
    order = ('kernel', 'bias', 'gamma', 'beta', 'moving_mean', 'moving_variance')
    layers = {layer: {name: own[name] for name in order if name in own} for layer, own in variables.items() if own}
    return _normalisation(source, weights) | layers


def _to_keras(path: str, leaf: np.ndarray, source: KerasSource) -> np.ndarray:
    if leaf.ndim == 4 and leaf.shape[2] == 1 and leaf.shape[3] > 1 and '.conv_dw.' in path:
        leaf = leaf.transpose(0, 1, 3, 2)
    if path == 'fc6.kernel':
        leaf = leaf.reshape(-1, 7, 7, leaf.shape[1]).transpose(1, 2, 0, 3).reshape(leaf.shape)
    if path == 'head.primary.kernel' and source.head_is_convolution:
        leaf = leaf[None, None]
    return np.ascontiguousarray(leaf)


def _normalisation(source: KerasSource, weights: Weights) -> dict[str, dict[str, np.ndarray]]:
    """The layer inside a Keras EfficientNet that has the preprocessing."""
    if not source.normalising.fullmatch('normalization/mean'):
        return {}
    mean, std = (np.array(values, np.float32) for values in (weights.preprocessing.mean, weights.preprocessing.std))
    return {'normalization': {'mean': mean, 'variance': std**2, 'count': np.zeros((), np.int32)}}


def write_torch(path: Path, state: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a state dict as .safetensors; `safetensors.torch.load_file(path)` reads it.

    Raises:
      UserError: it cannot be written there.
    """
    from safetensors.numpy import save_file

    with whole_file(path) as scratch:
        save_file(state, scratch, metadata=metadata)


def write_keras(path: Path, layers: dict[str, dict[str, np.ndarray]]) -> None:
    """Writes .h5 in the layer-group layout; `model.load_weights(path, by_name=True)` reads it in Keras 2 and 3.

    Raises:
      UserError: it cannot be written there.
    """
    import h5py

    with whole_file(path) as scratch, h5py.File(scratch, 'w') as file:
        _names(file, 'layer_names', layers)
        file.attrs['backend'], file.attrs['keras_version'] = 'jax', '3.0.0'
        for layer, variables in layers.items():
            group = file.create_group(layer)
            _names(group, 'weight_names', [f'{layer}/{name}' for name in variables])
            for name, value in variables.items():
                group.create_dataset(f'{layer}/{name}', data=value)
        _names(file.create_group('top_level_model_weights'), 'weight_names', [])


def _names(group: Any, attribute: str, names: Any) -> None:
    group.attrs[attribute] = np.array([name.encode() for name in names], 'S')


def leaves(weights: Weights) -> dict[str, np.ndarray]:
    """Returns all parameters and statistics by path; head.fc6 and head.fc7 of a VGG are renamed to fc6 and fc7."""
    renamed = {**weights.params, **weights.stats}
    if weights.model.startswith('vgg'):
        renamed = {path.replace('head.fc', 'fc'): leaf for path, leaf in renamed.items()}
    return renamed


def _no_target(model: str, target: str) -> UserError:
    return UserError(f'{model} cannot be exported to {target!r}; choose of {", ".join(targets(model))}')
