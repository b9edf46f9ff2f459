"""Is the winner of a sweep real? Its best trials and the untuned methods, trained again and tested
on sealed images.

A confirmation is a second study in the sweep's folder, whose trials are jobs: one candidate, split
and seed each. `confirm` does all of it; the command line and a user's program call that. `plan`
says what is trained, `job_ledger` keeps the jobs, `job` is what a worker does (nothing else in the
package sees test images) and `worker` has Ray do it, `asking` numbers the questions, `result` and
`cautions` conclude, `forecast` says beforehand what could be found, `reseeding` tries fresh seeds
on validation images beforehand, `tuned_comparators` searches for the other methods. To add what a
verdict should warn of, add a function to `cautions`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def plain(found: DataclassInstance) -> dict[str, Any]:
    """What a command found, as plain values: its JSON document."""
    return dict(json.loads(json.dumps(asdict(found), default=dict)))
