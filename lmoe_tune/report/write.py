"""Gather, draw and write: the page last, so that what it links to is there."""

from __future__ import annotations

from pathlib import Path

from lmoe_tune.durable import read_object, read_text, write_durably, writing
from lmoe_tune.records import TrialRecord
from lmoe_tune.report.answers import Compared
from lmoe_tune.report.facts import gather
from lmoe_tune.report.figures import draw_all
from lmoe_tune.report.page import make_page
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger

INDEX = "index.html"


def report_folder(folder: SweepFolder) -> Path:
    """Where a sweep's report is."""
    return folder.path / "report"


def write_report(ledger: Ledger) -> Path:
    """Write `index.html` and a PNG for each figure that can be drawn; returns the page's path.

    Raises:
        UsageError: the data of the sweep cannot be read.
        StorageError: the report cannot be written.
    """
    facts = gather(ledger)
    drawings = draw_all(facts, _compared(ledger, facts.best))
    environment = read_object(ledger.folder.environment)
    page = make_page(facts, drawings, read_text(ledger.folder.spec), environment)
    folder = report_folder(ledger.folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for drawing in drawings:
        path = folder / f"{drawing.name}.png"
        if drawing.png is not None:
            write_durably(path, drawing.png)
        else:
            path.unlink(missing_ok=True)  # of an earlier report
    write_durably(folder / INDEX, page.encode())
    return folder / INDEX


def _compared(ledger: Ledger, best: TrialRecord | None) -> Compared:
    if best is None:
        return Compared(None, None, ("no trial is complete yet",))
    if not ledger.folder.checkpoints(best.number).is_dir():
        return Compared.without_weights(best)

    from lmoe_tune.report.networks import compare_networks

    return compare_networks(ledger, best)
