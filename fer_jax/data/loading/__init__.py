"""From the examples of a split to batches on the devices."""
