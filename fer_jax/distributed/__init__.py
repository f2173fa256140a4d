"""Several processes and devices: how they start, find each other, share arrays, and stop."""
