"""The config of a run: its defaults, the helpers that configs call, and the flag that reads one."""
