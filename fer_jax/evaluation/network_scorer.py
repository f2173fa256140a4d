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
    """Scores splits of one task; each is placed at its first use, and all share one compiled program.

    Args:
      task: its name, by which what is scored is called: 'test' of the primary task, 'test/<task>' of another.
      head: the task whose head it uses; its own if ''.
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
        """float32 [N, classes] of the split, in its order.

        Args:
          start: a stage below which nothing changes between calls: what enters it is computed once.
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
        """To be called when a phase begins: what lies below its boundary may have changed."""
        self._loaders = {key: loader for key, loader in self._loaders.items() if key[1] is None}

    def score(self, role: str, variables: Variables, start: str | None = None) -> dict[str, dict[str, Any]]:
        """{role: scores} and, for each subset of the split, {role_subset: scores}; see `scores` and `logits`."""
        return self.scores(role, self.logits(role, variables, start))

    def scores(self, role: str, logits: np.ndarray) -> dict[str, dict[str, Any]]:
        """As `score`, of logits that are known already."""
        found = score_logits.score_split(role, self._data.splits[role], logits, self._data.classes)
        return {self.named(part): one for part, one in found.items()}

    def named(self, role: str) -> str:
        """What the split of this role is called among those of all tasks."""
        return role if self._task == PRIMARY else f'{role}/{self._task}'

    def predictions(self, role: str, logits: np.ndarray) -> dict[str, np.ndarray]:
        """{'<split>/<name>': array} of a scored split, for the names of `runs.results.PREDICTED`."""
        split = self._data.splits[role]
        arrays = (split.ids, split.truth, split.subjects, split.groups, logits)
        return {f'{self.named(role)}/{name}': array for name, array in zip(run_results.PREDICTED, arrays, strict=True)}
