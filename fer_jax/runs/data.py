"""The data of a finished run."""

from pathlib import Path

from fer_jax.data.dataset import Dataset
from fer_jax.data.tasks import load_tasks
from fer_jax.runs import config as run_config


def data_of_run(workdir: Path) -> dict[str, Dataset]:
    """The data of every task of a run, as long as they are where they were."""
    from fer_jax.runs.checkpoints import read_spec  # a step does not need Orbax

    spec = read_spec(workdir)
    return load_tasks(run_config.read_run_config(workdir), image_size=spec.image_size, channels=spec.channels)
