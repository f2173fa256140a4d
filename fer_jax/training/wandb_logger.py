"""Weights & Biases beside TensorBoard: the field `wandb` of a config names the project."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fer_jax.distributed import processes
from fer_jax.errors import UserError


@contextmanager
def wandb_run(config: Mapping[str, Any], workdir: Path) -> Iterator[Any]:
    """Starts a run at Weights & Biases, or goes on with that of the same workdir, and finishes it after the block.

    Its environment variables hold: WANDB_MODE=offline keeps everything in `<workdir>/wandb`, for `wandb sync` later.

    Returns:
      The `wandb.Run`; None where the config has no `wandb`, and in all processes but the main one.

    Raises:
      UserError: the package is not installed.
    """
    if not config['wandb'] or not processes.is_main_process():
        yield None
        return
    try:
        import wandb
    except ImportError:
        raise UserError(
            f"wandb={config['wandb']!r} needs the package wandb: pip install 'fer_jax[wandb]', or leave the field empty"
        ) from None
    place = hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16]
    with wandb.init(
        project=config['wandb'], name=workdir.name, id=place, resume='allow', dir=str(workdir), config=dict(config)
    ) as run:
        yield run


def final_scores(results: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scores of the splits that did not select the checkpoint, {'test/accuracy': 0.5}."""
    selecting = results['selected_on'].partition('/')[0]
    return {
        f'{split}/{name}': value
        for split, scores in results['splits'].items()
        for name, value in scores.items()
        if split != selecting and isinstance(value, float)
    }
