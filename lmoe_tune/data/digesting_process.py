"""A process that digests images; `digests` starts several."""

from __future__ import annotations

from lmoe_tune.data.digests import examine
from lmoe_tune.data.worker_processes import serve


def main() -> None:
    serve(examine)
