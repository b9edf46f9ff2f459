"""The report of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lmoe_tune.cli.options import HomeOption, NameArgument, resolve_home
from lmoe_tune.cli.output import say
from lmoe_tune.errors import TrackingError

if TYPE_CHECKING:
    from lmoe_tune.sweep.folder import SweepFolder

app = typer.Typer()


@app.command()
def report(name: NameArgument, home: HomeOption = None) -> None:
    """One page with the verdict, the best parameters and all figures; needs no network. Prints its path."""
    from lmoe_tune.report import write_report
    from lmoe_tune.sweep import view
    from lmoe_tune.sweep.folder import find_sweep

    folder = find_sweep(resolve_home(home), name)
    page = write_report(view.read_sweep(folder))
    try:
        delivered = deliver_report(folder, None)
    except TrackingError as error:
        say(f"{error}")
        delivered = False
    if not delivered:
        say(f"MLflow does not have the report yet; to deliver it: lmoe-tune sync {name}")
    typer.echo(str(page))


def deliver_report(folder: SweepFolder, uri: str | None) -> bool:
    """Give MLflow the report that there is; True where there is none. The sweep itself must be there already.

    Args:
        uri: another server than the sweep's own.
    """
    from lmoe_tune.sweep import view
    from lmoe_tune.sweep.tracked import address
    from lmoe_tune.tracking.uploads import upload_report

    where = folder.path / "report"
    if not (where / "index.html").is_file():
        return True
    ledger = view.read_sweep(folder)
    server = uri or address(folder, ledger.spec)
    run_id = view.tracking_of(ledger, server).parent_run_id
    if run_id is None:
        return False

    upload_report(server, where, run_id=run_id, artifact_root=folder.home / "mlartifacts")
    return True
