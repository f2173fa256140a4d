"""What trained networks say of the training images: targets for another network (Hinton et al. 2015; FitNets, 2015).

A teacher sees each stored image once, as it is; what it says is kept in the feature cache and learnt from at every
augmentation of that image.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.data import tasks as data_tasks
from fer_jax.data.dataset import Dataset, Split
from fer_jax.data.loading.loader import SplitLoader
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import sharding
from fer_jax.errors import UserError
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.feature_cache.recipe import FeatureSpec, boundary_spec
from fer_jax.models.network import build
from fer_jax.models.parameters import Variables, digest_of
from fer_jax.pretrained import Weights
from fer_jax.runs import restore
from fer_jax.runs.model_file import read_spec
from fer_jax.training.objectives import HINTS

TEACHER_BATCH_SIZE = 1024


def check_distillation(config: Mapping[str, Any]) -> None:
    """Checks the fields under `distil` against the rest of the config.

    Raises:
      UserError: teachers would have no effect, fields contradict each other, or mixup or cutmix is on, for whose mixed
        images there are no teacher outputs.
    """
    fields = config['distil']
    if not fields['teachers'] and fields['stages']:
        raise UserError(f'distil.stages={fields["stages"]} without distil.teachers; name their workdirs')
    if fields['teachers'] and not (fields['weight'] or (fields['stages'] and fields['hints'])):
        raise UserError('distil.teachers teach nothing: give distil.weight, or distil.stages and distil.hints')
    if fields['teachers'] and (annotation := config['data'].get('annotation')):
        raise UserError(f'distil.teachers tell classes, not data.annotation={annotation!r}; leave one of them empty')
    if HINTS in config['joint']:
        raise UserError(f'joint.{HINTS}: this name is for the head of distil.stages; choose another')
    for augment in (config['data']['augment'], *(phase['augment'] for phase in config['phases'])):
        if fields['teachers'] and (augment.get('mixup') or augment.get('cutmix')):
            raise UserError('distil.teachers see images one by one; set data.augment.mixup and cutmix to 0')


def with_teacher_outputs(
    config: Mapping[str, Any], data: Dataset, mesh: Mesh
) -> tuple[Dataset, dict[str, dict[str, str]]]:
    """Adds the teachers' 'probabilities' [N, C] and 'hints' [N, D], float32, to the training split.

    Probabilities are the mean over the teachers of softmax(logits / temperature). Hints are the globally averaged
    outputs of the stages in `distil.stages`, standardised by column and concatenated over the teachers.

    Returns:
      (data with the outputs, {workdir of a teacher: {'step', 'sha256' of its variables}}). Without teachers the data
      are returned as they are, with {}.

    Raises:
      UserError: a teacher is not a finished run, does not know a class, or has no such stage.
    """
    fields = config['distil']
    if not fields['teachers']:
        return data, {}
    split = data.splits['train']
    probabilities, hints, teachers = [], [], {}
    for workdir in fields['teachers']:
        folder = restore.resolve_workdir(workdir)
        weights = restore.weights_of_run(folder)
        sha256 = digest_of({**weights.params, **weights.stats})
        teachers[workdir] = {'step': weights.metadata['step'], 'sha256': sha256.hexdigest()}
        logits, outputs = teacher_logits(folder, weights, config, data.classes, split, mesh)
        probabilities.append(np.asarray(jax.nn.softmax(logits / fields['temperature'])))
        if outputs is not None:
            std = outputs.std(0)
            hints.append((outputs - outputs.mean(0)) / np.where(std > 1e-6, std, 1))
    teacher_outputs: dict[str, np.ndarray] = {'probabilities': np.asarray(np.mean(probabilities, 0), np.float32)}
    if hints:
        teacher_outputs[HINTS] = np.concatenate(hints, 1).astype(np.float32)
    learnt = dataclasses.replace(split, teacher_outputs=teacher_outputs)
    return dataclasses.replace(data, splits=data.splits | {'train': learnt}), teachers


def teacher_logits(
    workdir: Path,
    weights: Weights,
    config: Mapping[str, Any],
    classes: tuple[str, ...],
    split: Split,
    mesh: Mesh,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Computes the logits and stage outputs of one teacher for every image of the training split.

    Args:
      workdir: folder of the teacher's run.
      weights: the teacher's selected weights.
      config: the student's config.
      classes: the student's classes, in the order of the returned columns.
      split: the student's training split.

    Returns:
      (logits float32 [N, C], globally averaged outputs float32 [N, D] of `distil.stages`, or None if that is empty).

    Raises:
      UserError: the teacher does not know a class, or has no such stage below its head.
      RuntimeError: the teacher's split does not have the same images.
    """
    stages = config['distil']['stages']
    spec = read_spec(workdir)
    known = spec.classes[PRIMARY]
    if missing := [name for name in classes if name not in known]:
        raise UserError(f'distil.teachers: {workdir} knows no {", ".join(missing)}; it has {", ".join(known)}')
    network = build(spec)
    if odd := [stage for stage in stages if stage not in list(network.stages)[:-1]]:
        raise UserError(
            f'distil.stages: {", ".join(odd)} is no stage of {workdir} below its head; it has '
            f'{", ".join(list(network.stages)[:-1])}'
        )
    data = data_tasks.load_tasks(config, image_size=spec.image_size, channels=spec.channels)[PRIMARY]
    if not np.array_equal(data.splits['train'].ids, split.ids):
        raise RuntimeError(f'{workdir} would see other images than its student')
    images = SplitLoader(data.splits['train'], placement=config['data']['placement'], mesh=mesh, role='train')
    own = Variables(dict(weights.params), dict(weights.stats))
    variables = sharding.put(own, sharding.replicated(mesh))

    def outputs(feature_spec: FeatureSpec) -> np.ndarray:
        place: dict[str, Any] = {'fingerprint': data.fingerprint, 'role': 'train', 'mesh': mesh}
        return feature_loader.make_feature_loader(network, feature_spec, variables, images, **place).features

    predict = jax.jit(lambda x: network.forward(own, x, start='head')[0][PRIMARY])
    entering = outputs(boundary_spec(network, 'head', spec.image_size))
    starts = range(0, len(entering), TEACHER_BATCH_SIZE)
    logits = np.concatenate([predict(jnp.asarray(entering[start : start + TEACHER_BATCH_SIZE])) for start in starts])
    order = [known.index(name) for name in classes]
    hints = np.asarray(outputs(FeatureSpec(tuple(stages), spec.image_size, pool=1))) if stages else None
    return logits[:, order], hints
