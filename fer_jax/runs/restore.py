"""The network that a run selected, from its checkpoints or from a release file made of them."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fer_jax import pretrained
from fer_jax.errors import UserError
from fer_jax.models.network import Network, build
from fer_jax.models.parameters import Variables
from fer_jax.pretrained import Preprocessing, Weights
from fer_jax.runs import provenance
from fer_jax.runs.model_file import read_spec
from fer_jax.runs.results import SCORES_ANEW
from fer_jax.utils import cache, checked_files
from fer_jax.utils.paths import user_path

RELEASE = 'release'  # the name of the network that comes with fer_jax, the first of RELEASES
RELEASES = ('ferplus', 'fer2013')  # labels of the networks that come with fer_jax: 'release:fer2013'
FILE = 'release.safetensors'  # beside model.json, in place of checkpoints


class Selected(NamedTuple):
    """The selected checkpoint of a run, as a network and its variables.

    Attributes:
      step: the step of the checkpoint.
      variables: float32.
    """

    network: Network
    step: int
    variables: Variables


def resolve_workdir(workdir: str | Path) -> Path:
    """Returns the folder of a run as a path.

    Args:
      workdir: a folder; where none of that name exists, 'release' is the network that comes with fer_jax, and
        'release:LABELS' the one that was trained on these labels, see `RELEASES`.

    Raises:
      UserError: no such network comes with fer_jax.
    """
    folder = user_path(workdir)
    name, colon, labels = str(workdir).partition(':')
    if name != RELEASE or folder.exists():
        return folder
    if colon and labels not in RELEASES:
        raise UserError(f'{workdir} does not come with fer_jax; choose {RELEASE}:{f" or {RELEASE}:".join(RELEASES)}')
    return cache.PACKAGE / RELEASE / (labels or RELEASES[0])


def restore_selected(workdir: str | Path, sharding: jax.sharding.Sharding | None = None) -> Selected:
    """Restores the selected checkpoint of the run in `workdir`, or its release file.

    Args:
      sharding: where the leaves are placed; on the first device if None.

    Raises:
      UserError: there is no run, or no evaluated checkpoint yet, or it is damaged.
    """
    cache.use_compilation_cache()
    folder = resolve_workdir(workdir)
    spec = read_spec(folder)
    network = build(spec)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    released = folder / 'checkpoints' / FILE
    if released.is_file():
        weights = pretrained.load(released, spec.name)
        whole = dataclasses.replace(weights, params=_float32(weights.params), stats=_float32(weights.stats))
        variables = pretrained.fill(network.variables, whole, head=True, sharding=sharding)
        return Selected(network, int(weights.metadata['step']), variables)
    from fer_jax.runs.checkpoints import Checkpoints  # Orbax: a third of the start of a program that needs none

    store = Checkpoints(folder, spec, read_only=True)
    step = store.best_step()
    if step is None:
        if store.damaged:
            listed = '; '.join(f'{name}: {reason}' for name, reason in store.damaged.items())
            raise UserError(
                f'all checkpoints of {str(workdir)!r} are damaged ({listed}); take them from a copy of that run'
            )
        aside = sorted(path.name for path in store.directory.glob('set_aside/*') if path.is_dir())
        hint = f' (damaged ones lie in checkpoints/set_aside: {", ".join(aside)})' if aside else ''
        raise UserError(
            f'{str(workdir)!r} holds no evaluated checkpoint yet{hint}; let that run reach its first evaluation'
        )
    return Selected(network, step, store.restore_model(step, network.abstract(sharding)))


def _float32(tree: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf, np.float32) for path, leaf in tree.items()}


def temperature(folder: Path) -> float:
    """Reads the temperature that calibrates the softmax of a finished run; 1 where none is known.

    It was fitted on the selecting split.
    """
    return calibration(folder).get('temperature', 1.0)


def calibration(folder: Path) -> dict[str, Any]:
    """Reads {fitted_on, temperature} from results.json of a finished run; {} where there is none.

    Raises:
      UserError: results.json is damaged.
    """
    remedy = f'{SCORES_ANEW}, or remove it: then no temperature calibrates the probabilities'
    with contextlib.suppress(FileNotFoundError, KeyError, TypeError, ValueError):
        stored = checked_files.read_json(folder / 'results.json', remedy)['calibrated']
        return {'fitted_on': str(stored['fitted_on']), 'temperature': float(stored['temperature'])}
    return {}


def weights_of_run(workdir: Path, model: str | None = None) -> Weights:
    """Returns the selected checkpoint of a run as weights, with its head.

    The metadata hold the licence of the weights that the run began from, and their source as 'began_from'.

    Args:
      model: name of the network that is expected; None for any.

    Raises:
      UserError: there is no such checkpoint, or it is of another network than `model`.
    """
    folder = resolve_workdir(workdir)
    spec = read_spec(folder)
    if model and spec.name != model:
        raise UserError(f'model.weights={str(workdir)!r} is a run of {spec.name}, model.name is {model!r}')
    _, step, variables = restore_selected(workdir)
    metadata = {'source': str(workdir), 'step': str(step)}
    before = provenance.read_environment(folder / 'environment.json').get('weights')
    before = before if isinstance(before, dict) else {}
    if chain := [str(before[name]) for name in ('source', 'began_from') if name in before]:
        metadata['began_from'] = ', which began from '.join(chain)
    if 'licence' in before:
        metadata['licence'] = str(before['licence'])
    return Weights(
        model=spec.name,
        params={path: np.asarray(leaf) for path, leaf in variables.params.items()},
        stats={path: np.asarray(leaf) for path, leaf in variables.batch_stats.items()},
        preprocessing=Preprocessing(spec.mean, spec.std, spec.order, spec.image_size),
        metadata=metadata,
    )
