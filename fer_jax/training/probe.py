"""Many heads at once on frozen features: what a network knows about expressions without training it.

The features of every image, of one or several stages, are computed once (`fer_jax.feature_cache.loader`). On them a
grid of softmax heads (learning rate x weight decay x seed) is trained together, as one program, beside closed-form
ridge heads. The one that is best on validation is scored on the test split, once.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fer_jax.data.augmentation.augment import Augment
from fer_jax.data.loading import sampler
from fer_jax.data.loading.loader import SplitLoader
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.evaluation import score_logits
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.feature_cache.recipe import FeatureSpec
from fer_jax.reporting import figures, html_report, probe_grid
from fer_jax.runs import config as run_config
from fer_jax.runs import provenance
from fer_jax.runs import results as run_results
from fer_jax.runs.lock import workdir_lock
from fer_jax.training import setup
from fer_jax.training.run import Run
from fer_jax.utils import checked_files

MIRROR = Augment(flip=1.0)


def probe(config: Mapping[str, Any], workdir: Path, *, dry_run: bool = False) -> dict[str, Any]:
    """Computes features, trains a grid of linear heads on them, selects one and scores it.

    Writes results.json, grid.png and the confusion matrices.

    Args:
      config: a whole config, with `probe` as in configs/probe.py.
      dry_run: check the config and the data, write nothing.

    Returns:
      The content of results.json: `selected_on`, `pick`, `grid`, `classes`, `splits` and `seconds`.

    Raises:
      UserError: the config or the data are invalid.
    """
    fields = config['probe']
    run = setup.prepare(config)
    check_probe(fields, list(run.network.stages), run.select)
    if dry_run:
        print(run.describe())
        return {'dry_run': True}
    with workdir_lock(workdir):
        run_config.check_run_config(workdir, config)
        checked_files.write_json(workdir / 'config.json', config)
        weights = {} if run.weights is None else run.weights.metadata
        data = {'name': run.data.name, 'fingerprint': run.data.fingerprint}
        environment = provenance.environment(data=data, weights=weights)
        checked_files.write_json(workdir / 'environment.json', environment)
        print(f'workdir {workdir}\n{run.describe()}')
        results = fit(run, fields)
        run_results.write_results(workdir / 'results.json', results)
        probe_grid.grid_png(workdir / 'grid.png', results)
        figures.confusions(workdir, results)
        html_report.write_report(workdir, run.data)
        print(probe_grid.summary(results))
        print(f'report.html, results and pictures are in {workdir}')
    return results


def check_probe(fields: Mapping[str, Any], stages: Sequence[str], select: tuple[str, str]) -> None:
    """Checks the fields under `probe` against the network's stages and the selecting metric.

    Raises:
      UserError: the probe cannot select by the metric, or a stage is not one of the network.
    """
    if select[1] == 'nll':
        raise UserError(
            f'checkpoint.select={"/".join(select)!r}: a probe compares ridge heads, which give no probabilities, with '
            "softmax heads; choose 'validation/accuracy', 'validation/balanced_accuracy' or 'validation/macro_f1'"
        )
    for stage in fields['stages']:
        if stage not in stages[:-1]:
            raise UserError(f'probe.stages: {stage!r} is no stage below the head; there are {", ".join(stages[:-1])}')


def fit(run: Run, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the features of a prepared run, trains and scores all heads, and selects the best.

    Returns:
      The results, see `probe`.

    Raises:
      UserError: the run has an annotation or joint tasks.
    """
    if annotation := run.config['data']['annotation']:
        raise UserError(f"data.annotation={annotation!r}: the heads of a probe tell classes; set it to ''")
    if len(run.tasks) > 1:
        raise UserError(f'joint has {", ".join(list(run.tasks)[1:])}, but a probe trains one task; set joint to {{}}')
    begun = time.perf_counter()
    views = 2 if fields['mirror'] else 1
    variables = run.initial()
    feature_spec = FeatureSpec(
        tuple(fields['stages']),
        run.network.spec.image_size,
        pool=fields['pool'],
        views=views,
        settings=MIRROR if views == 2 else Augment(),
        dtype=fields['dtype'],
    )

    train = run.tasks[PRIMARY].loader

    def of(role: str) -> np.ndarray:
        """Returns the features [views, N, D] of a split."""
        split = run.data.splits[role]
        images = train if role == 'train' else SplitLoader(split, placement=train.placement, mesh=run.mesh, role=role)
        made = feature_loader.make_feature_loader(
            run.network, feature_spec, variables, images, fingerprint=run.data.fingerprint, role=role, mesh=run.mesh
        )
        rows = made.features
        return rows.reshape(views, len(split.ids), -1)

    role, metric = run.select
    held = {name: of(name) for name in dict.fromkeys(('train', role, *run.data.splits))}
    computed = time.perf_counter()
    mean, std = moments(held['train'])
    x = {name: ((rows.astype(np.float32) - mean) / std) for name, rows in held.items()}
    labels = {name: split.labels for name, split in run.data.splits.items()}
    classes = len(run.data.classes)
    heads = [
        *ridge(x['train'], labels['train'], classes, fields['ridge']),
        *trained(x['train'], labels['train'], classes, fields),
    ]
    fitted = time.perf_counter()

    def scored(head: dict[str, Any], name: str) -> np.ndarray:
        """Returns the logits [N, classes] of a head, averaged over the views of each image."""
        return np.mean([view @ head['kernel'] + head['bias'] for view in x[name]], 0)

    grid = []
    for head in heads:
        logits = scored(head, role)
        scores = score_logits.score_logits(np.nan_to_num(logits), labels[role], run.data.classes)
        diverged = not np.isfinite(logits).all()  # by too large a learning rate
        grid.append({**head['what'], metric: 0.0 if diverged else scores[metric], 'n': scores['n']})
    best = max(range(len(grid)), key=lambda index: grid[index][metric])
    splits: dict[str, Any] = {}
    for name, split in run.data.splits.items():
        if name != 'train':
            splits |= score_logits.score_split(name, split, scored(heads[best], name), run.data.classes)
    return {
        'selected_on': f'{role}/{metric}',
        'step': 0,
        'classes': list(run.data.classes),
        'phases': [],
        'features': int(mean.size),
        'pick': grid[best],
        'grid': grid,
        'splits': splits,
        'seconds': {'features': round(computed - begun, 1), 'heads': round(fitted - computed, 1)},
    }


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean and standard deviation, float32 [D], over all views and images.

    Sums are taken in float64. The standard deviation is 1 where a feature does not vary.

    Args:
      rows: [views, N, D].
    """
    count, total, squares = 0, 0.0, 0.0
    for part in np.array_split(rows.reshape(-1, rows.shape[-1]), max(1, rows.size // 2**26)):
        wide = part.astype(np.float64)
        count, total, squares = count + len(wide), total + wide.sum(0), squares + np.square(wide).sum(0)
    mean = np.asarray(total / count)
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1).astype(np.float32)


def ridge(x: np.ndarray, labels: np.ndarray, classes: int, strengths: Sequence[float]) -> list[dict[str, Any]]:
    """Fits ridge regressions to one-hot labels, with a penalty of `strength` times n times the squared weights.

    Args:
      x: float32 [views, N, D], standardised.
      labels: int [N].
      classes: number of classes.
      strengths: of the penalty, one for each fit.

    Returns:
      For each strength {'what', 'kernel': [D, classes], 'bias': [classes]}: solved in float64, from products summed in
      float32.
    """
    if not strengths:
        return []
    from scipy.linalg import cho_factor, cho_solve

    rows = x.reshape(-1, x.shape[-1])
    targets = np.tile(np.eye(classes, dtype=np.float32)[labels], (len(x), 1))
    bias = targets.mean(0)
    gram, moment = np.asarray(rows.T @ rows, np.float64), np.asarray(rows.T @ (targets - bias), np.float64)
    heads = []
    for strength in strengths:
        loaded = gram + strength * len(rows) * np.eye(len(gram))
        kernel = cho_solve(cho_factor(loaded, overwrite_a=True), moment).astype(np.float32)
        heads.append({'what': {'kind': 'ridge', 'strength': strength}, 'kernel': kernel, 'bias': bias})
    return heads


def trained(x: np.ndarray, labels: np.ndarray, classes: int, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Trains softmax heads by AdamW and a cosine, for all combinations of rate, weight decay and seed at once.

    All heads see the same minibatches; the views of an image alternate from epoch to epoch.

    Args:
      x, labels, classes: as in `ridge`.
      fields: the config's fields under `probe`.

    Returns:
      For each combination {'what', 'kernel': [D, classes], 'bias': [classes]}.
    """
    whats = [
        {'kind': 'softmax', 'learning_rate': rate, 'weight_decay': decay, 'seed': seed}
        for rate in fields['learning_rates']
        for decay in fields['weight_decays']
        for seed in fields['seeds']
    ]
    views, count, size = x.shape
    batch_size = min(fields['batch_size'], count)
    steps = -(-int(fields['epochs'] * count) // batch_size)
    adam = optax.scale_by_adam()
    rates, decays = (jnp.asarray([what[name] for what in whats]) for name in ('learning_rate', 'weight_decay'))
    keys = jnp.stack([jax.random.key(what['seed']) for what in whats])
    kernels = jax.vmap(lambda key: jax.random.normal(key, (size, classes)) * 0.01 / size**0.5)(keys)
    heads = {'kernel': kernels, 'bias': jnp.zeros((len(whats), classes))}

    def loss(head: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(x @ head['kernel'] + head['bias'], y).mean()

    def update(head: Any, state: Any, rate: jax.Array, decay: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        steered, state = adam.update(jax.grad(loss)(head, x, y), state)
        steered['kernel'] += decay * head['kernel']
        return jax.tree.map(lambda leaf, by: leaf - rate * by, head, steered), state

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def along(heads: Any, states: Any, rows: jax.Array, y: jax.Array, index: jax.Array, first: jax.Array) -> Any:
        def step(carry: Any, index: Any) -> tuple[Any, None]:
            number, row = index
            share = 0.5 * (1 + jnp.cos(jnp.pi * number / steps))
            batch = jnp.take(rows, row, axis=0), jnp.take(y, row % count, axis=0)
            return jax.vmap(update, (0, 0, 0, 0, None, None))(carry[0], carry[1], share * rates, decays, *batch), None

        return jax.lax.scan(step, (heads, states), (first + jnp.arange(len(index)), index))[0]

    states = jax.vmap(adam.init)(heads)
    rows, y = jnp.asarray(x.reshape(-1, size)), jnp.asarray(labels)
    chunk = max(1, count // batch_size)
    for first in range(0, steps, chunk):
        numbers = range(first, min(first + chunk, steps))
        index = np.stack([sampler.indices(0, number, batch_size, count) for number in numbers])
        epochs = (np.asarray(numbers)[:, None] * batch_size + np.arange(batch_size)) // count
        heads, states = along(
            heads, states, rows, y, jnp.asarray((epochs + index) % views * count + index), jnp.int32(first)
        )
    kernels, biases = np.asarray(heads['kernel']), np.asarray(heads['bias'])
    return [
        {'what': what, 'kernel': kernel, 'bias': bias}
        for what, kernel, bias in zip(whats, kernels, biases, strict=True)
    ]
