"""Where downloaded, converted, prepared and compiled things are kept between runs."""

import os
from pathlib import Path


def root() -> Path:
    """`FER_JAX_CACHE`, else `~/.cache/fer_jax`. Holds `datasets/`, `weights/` and `xla/`."""
    return Path(os.environ.get('FER_JAX_CACHE') or Path.home() / '.cache' / 'fer_jax').expanduser()
