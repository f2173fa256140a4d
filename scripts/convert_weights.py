"""Forwards to `python -m fer_jax.convert_weights`, which took its place."""

import sys

from fer_jax.convert_weights import main

if __name__ == '__main__':
    sys.exit(main())
