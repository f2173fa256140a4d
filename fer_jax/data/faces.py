"""Forwards to `fer_jax.data.imaging.faces`."""

from fer_jax.utils.moved import forward

__getattr__ = forward(__name__, dict.fromkeys(('Detector', 'Face', 'detector'), 'fer_jax.data.imaging.faces'))
