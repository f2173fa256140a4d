"""Where downloaded, converted, prepared and compiled things are kept between runs."""

import os
import tempfile
from importlib import resources
from pathlib import Path

from fer_jax.errors import UserError
from fer_jax.utils.paths import user_path

PACKAGE = Path(str(resources.files('fer_jax')))  # the folder of this package, and of what comes with it


def root() -> Path:
    """Returns the cache folder: `FER_JAX_CACHE`, else `~/.cache/fer_jax`.

    It holds `datasets/`, `weights/` and `xla/`.

    Raises:
      UserError: the home folder is not known.
    """
    given = os.environ.get('FER_JAX_CACHE')
    if given:
        return user_path(given)
    try:
        return user_path('~/.cache/fer_jax')
    except UserError:
        raise UserError(
            'the home folder is not known, and with it the cache folder; set FER_JAX_CACHE to a folder, or HOME'
        ) from None


def is_writable(folder: Path) -> bool:
    """Returns whether files can be written to a folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in `xla/`: seconds become tenths at the second start.

    JAX_COMPILATION_CACHE_DIR names another folder. From one that cannot be written, programs are only read; where no
    cache folder is known, nothing is kept.
    """
    import jax

    given: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    try:
        folder = Path(given or root() / 'xla')
    except UserError:
        return
    if not given:
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
    if not is_writable(folder):  # JAX would end the run where it cannot make the folder, and warn at every program
        jax.config.update('jax_persistent_cache_min_compile_time_secs', float('inf'))
    jax.config.update('jax_compilation_cache_dir', str(folder) if folder.is_dir() else None)
