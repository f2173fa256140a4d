"""Forwards to `fer_jax.inference.face_pipeline`."""

from fer_jax.utils.moved import forward

__getattr__ = forward(__name__, dict.fromkeys(('Cutting', 'look'), 'fer_jax.inference.face_pipeline'))
