"""Training: from a config to a run, its phases and steps."""
