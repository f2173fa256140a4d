"""The table of the examples of a source: its classes, labels and splits."""
