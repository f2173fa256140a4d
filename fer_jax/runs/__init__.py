"""What a run leaves behind: checkpoints, config, environment, logs and results."""
