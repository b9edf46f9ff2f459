"""What a worker process of a local sweep imports while the driver is still starting.

Collecting garbage meanwhile would take half a second, and find nothing; the first collection after it, a fifth.
"""

import gc

from lmoe_tune.garbage import uncollected

with uncollected():
    import lmoe_tune.training.trial  # noqa: F401
    import trainables.worker  # noqa: F401

    gc.freeze()
