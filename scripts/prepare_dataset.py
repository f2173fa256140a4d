"""Forwards to `python -m fer_jax.prepare_dataset`, which took its place."""

import sys

from fer_jax.prepare_dataset import main

if __name__ == '__main__':
    sys.exit(main())
