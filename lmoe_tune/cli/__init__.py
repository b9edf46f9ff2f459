"""The command line. Heavy imports are inside the commands, so that `--help` is instant."""
