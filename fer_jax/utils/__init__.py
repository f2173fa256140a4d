"""What knows nothing of networks and data: files, threads, progress, signals."""
