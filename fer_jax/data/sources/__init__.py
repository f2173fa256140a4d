"""The kinds of source: class folders, manifests, and prepared sets."""
