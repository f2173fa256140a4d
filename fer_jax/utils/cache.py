"""Where downloaded, converted, prepared and compiled things are kept between runs."""

import os
from importlib import resources
from pathlib import Path

PACKAGE = Path(str(resources.files('fer_jax')))  # the folder of this package, and of what comes with it


def root() -> Path:
    """Returns the cache folder: `FER_JAX_CACHE`, else `~/.cache/fer_jax`.

    It holds `datasets/`, `weights/` and `xla/`.
    """
    return Path(os.environ.get('FER_JAX_CACHE') or Path.home() / '.cache' / 'fer_jax').expanduser()


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in `xla/`: seconds become tenths at the second start.

    JAX_COMPILATION_CACHE_DIR names another folder.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update('jax_compilation_cache_dir', str(root() / 'xla'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
