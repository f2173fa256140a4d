"""Augmentation of batches, inside jit."""
