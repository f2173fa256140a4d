"""Runs a network over a split: the logits of every example, once, and their scores."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.dataset import Dataset
from fer_jax.data.loading import batch_loop
from fer_jax.data.loading.loader import SplitLoader, batch_fetcher
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes, sharding
from fer_jax.evaluation import score_logits
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.feature_cache import recipe as feature_recipe
from fer_jax.feature_cache.loader import FeatureLoader
from fer_jax.inference.eval_step import eval_step
from fer_jax.models.network import Network
from fer_jax.models.parameters import Variables
from fer_jax.runs import results as run_results


class NetworkScorer:
    """Scores splits of one task. Each split is placed at its first use; all share one compiled program.

    Args:
      network: the network.
      data: the task's data set.
      batch_size: examples per batch.
      placement: where the images are kept, see `data.loading.loader.SplitLoader`.
      mesh: devices to compute on.
      task: name of the task, used in the names of the scores: 'test' for the primary task, 'test/<task>' for others.
      head: name of the task whose head is used; '' for the task's own.
      tta: views of each image, see `inference.tta.views`.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        *,
        batch_size: int,
        placement: str,
        mesh: Mesh,
        task: str = PRIMARY,
        head: str = '',
        tta: str = 'none',
    ):
        self._data, self._batch_size, self._placement, self._mesh = data, batch_size, placement, mesh
        self._network, self._task = network, task
        of_batch = functools.partial(eval_step, network=network, task=head or task, tta=tta)

        def steps(variables: Variables, batches: Any, count: jax.Array, start: str | None) -> jax.Array:
            return batch_loop.map_batches(functools.partial(of_batch, variables, start=start), batches, count)

        self._steps = jax.jit(steps, static_argnames='start', out_shardings=sharding.replicated(mesh))
        self._loaders: dict[tuple[str, str | None], SplitLoader | FeatureLoader] = {}

    def logits(self, role: str, variables: Variables, start: str | None = None) -> np.ndarray:
        """Computes the logits of every example of a split.

        Args:
          role: role of the split.
          variables: see `Network.forward`.
          start: a stage below which the network does not change between calls; its input is computed once and cached.
            None computes the whole network.

        Returns:
          float32 [N, classes], in the order of the split.
        """
        split = self._data.splits[role]
        loader, fetch = self._loader(role, variables, start), batch_fetcher(self._mesh)
        parts, kept = [], []
        for host_batches, weight in loader.in_order(self._batch_size, batch_loop.of_images()):
            count, batches = batch_loop.filled(weight), fetch(loader.device_data, host_batches)
            parts.append((self._steps(variables, batches, count, start=start), weight))
            processes.step_finished()
        for part, weight in parts:
            kept.append(np.asarray(part)[weight > 0])
            processes.step_finished()
        processes.step_finished(more=False)
        rows = np.concatenate(kept)
        if len(rows) != len(split.labels):
            raise RuntimeError(f'{len(rows)} of {len(split.labels)} examples of {role} were scored')
        return rows

    def _loader(self, role: str, variables: Variables, start: str | None) -> SplitLoader | FeatureLoader:
        if (role, start) not in self._loaders:
            if start is None:
                split = self._data.splits[role]
                loader: SplitLoader | FeatureLoader = SplitLoader(
                    split, placement=self._placement, mesh=self._mesh, role=role
                )
            else:
                spec = self._network.spec
                images: Any = self._loader(role, variables, None)
                loader = feature_loader.make_feature_loader(
                    self._network,
                    feature_recipe.boundary_spec(self._network, start, spec.image_size, dtype=spec.dtype),
                    variables,
                    images,
                    fingerprint=self._data.fingerprint,
                    role=role,
                    mesh=self._mesh,
                    batch_size=self._batch_size,
                )
            self._loaders[role, start] = loader
        return self._loaders[role, start]

    def forget_features(self) -> None:
        """Discards the cached features.

        Call it when a phase begins, because stages below its boundary may have changed.
        """
        self._loaders = {key: loader for key, loader in self._loaders.items() if key[1] is None}

    def score(self, role: str, variables: Variables, start: str | None = None) -> dict[str, dict[str, Any]]:
        """Computes the scores of a split and its subsets.

        Args:
          role, variables, start: see `logits`.

        Returns:
          {name: scores} of the split and, as role_subset, of each subset; see `scores`.
        """
        return self.scores(role, self.logits(role, variables, start))

    def scores(self, role: str, logits: np.ndarray) -> dict[str, dict[str, Any]]:
        """Computes the scores of a split and its subsets from known logits.

        Args:
          role: role of the split.
          logits: float [N, classes], in the order of the split.

        Returns:
          {name: scores}, see `evaluation.score_logits.score_split`; for another task than the primary one '/<task>' is
          appended to each name.
        """
        by_part = score_logits.score_split(role, self._data.splits[role], logits, self._data.classes)
        return {self.named(part): scores for part, scores in by_part.items()}

    def named(self, role: str) -> str:
        """Returns the name of a split among those of all tasks: '<role>', or '<role>/<task>' if not primary."""
        return role if self._task == PRIMARY else f'{role}/{self._task}'

    def predictions(self, role: str, logits: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the arrays of a scored split under the keys '<split>/<name>', see `runs.results.PREDICTED`.

        Args:
          role: role of the split.
          logits: float [N, classes], in the order of the split.
        """
        split = self._data.splits[role]
        arrays = (split.ids, split.truth, split.subjects, split.groups, logits)
        return {f'{self.named(role)}/{name}': array for name, array in zip(run_results.PREDICTED, arrays, strict=True)}
