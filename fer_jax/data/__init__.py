"""Data sets: where images and labels come from, how they are split, augmented, and loaded in batches."""
