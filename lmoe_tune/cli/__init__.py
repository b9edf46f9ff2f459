"""The command line: parses, calls `lmoe_tune.api`, prints. Heavy imports are inside the commands, so
that `--help` is instant."""
