"""The entry point of `lmoe-tune` and `python -m lmoe_tune`: Ctrl-C ends it without a traceback,
even while the command line is still being imported.
"""

from __future__ import annotations

import gc
import os
import sys

COLLECTED_AFTER = 50_000  # new objects; after 700, Python's default, a start takes .2 s longer


def main() -> None:
    """Run the command line."""
    gc.set_threshold(COLLECTED_AFTER, *gc.get_threshold()[1:])
    try:
        from lmoe_tune.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing was started\n")
        sys.stderr.flush()
        os._exit(130)

    run()


if __name__ == "__main__":
    main()
