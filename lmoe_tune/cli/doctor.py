"""The command that checks what runs depend on: doctor."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import lmoe_tune as lt
from lmoe_tune import advice
from lmoe_tune.cli import machine
from lmoe_tune.cli.machine import Finding, finding
from lmoe_tune.cli.options import FormatOption, HomeOption, load, resolve_home
from lmoe_tune.cli.output import print_rows
from lmoe_tune.errors import LmoeTuneError, TrackingAwayError, TrackingError, UsageError

if TYPE_CHECKING:
    from lmoe_tune.sweep.folder import SweepFolder

app = typer.Typer()


@app.command()
def doctor(
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="[SPEC]",
            help="A spec to check for: its cache and GPU memory; with --address what nodes need.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="A", help="A Ray cluster, to check each of its nodes."),
    ] = None,
    rebuild: Annotated[
        str | None,
        typer.Option(
            "--rebuild",
            metavar="NAME",
            help="Rebuild a sweep's damaged ledger from its trials' records.",
        ),
    ] = None,
    form: FormatOption = "table",
    home: HomeOption = None,
) -> None:
    """Check the installation, this machine, the home and the sweeps in it; rebuild a damaged
    ledger.
    """
    if rebuild is not None:
        typer.echo(rebuild_ledger(resolve_home(home), rebuild))
        return

    loaded = None if spec is None else load(spec, None)
    findings = examine(resolve_home(home), loaded)
    if address is not None:
        findings += examine_nodes(address, loaded or load("digits", None), resolve_home(home))
    elif loaded is not None:
        findings += examine_memory(loaded)
    print_rows(findings, ("state", "what", "found", "advice"), form)
    if any(finding["state"] == "fail" for finding in findings):
        raise typer.Exit(1)


def examine(home: Path, loaded: lt.LoadedSpec | None = None) -> list[Finding]:
    """All findings: the machine and the environment, the sweeps of the home, and the tracking
    server.

    Args:
        loaded: a spec that is to be searched, for the folders that it names.
    """
    given = None if loaded is None else loaded.spec
    return [*machine.examine(home), *_caches(home, given), *_sweeps(home), _tracking(home)]


def examine_memory(loaded: lt.LoadedSpec) -> list[Finding]:
    """Whether the trials of a spec fit into this machine's GPUs; nothing if they train on the
    CPU.
    """
    from lmoe_tune.memory_plan import memory_plan
    from lmoe_tune.training.platform import gpu_bytes, resolve_platform

    plan = memory_plan(resolve_platform(loaded.spec), loaded.folder)
    if plan is None:
        return []

    memory = gpu_bytes()
    state: machine.State = "warn" if memory is None or plan.advice(memory) else "ok"
    return [finding(state, f"GPU memory for {loaded.spec.name}", plan.compared(memory))]


def examine_nodes(address: str, loaded: lt.LoadedSpec, home: Path) -> list[Finding]:
    """What each node of a cluster lacks to run trials of a spec."""
    from lmoe_tune.memory_plan import memory_plan
    from lmoe_tune.sweep.preflight import look_at_nodes
    from lmoe_tune.training.platform import resolve_platform

    spec, folder = resolve_platform(loaded.spec), loaded.folder
    try:
        plan = memory_plan(spec, folder)
        needed = None if plan is None else plan.needed
        nodes = look_at_nodes(address, spec, home, folder, needed)
    except LmoeTuneError as error:
        return [finding("fail", f"cluster at {address}", str(error))]

    found = []
    for node in nodes:
        what = f"node {node.host}"
        if node.faults:
            found.append(finding("fail", what, "; ".join(node.faults), "no trial runs there"))
        else:
            found.append(finding("ok", what, node.has))
    if plan is not None:
        found.append(finding("ok", f"GPU memory for {spec.name}", str(plan)))
    if not any(node.is_large for node in nodes):
        asked = spec.resources
        none = f"no node has cpu {asked.cpu:g} and gpu {asked.gpu:g}, which a trial asks for"
        found.append(finding("warn", f"cluster at {address}", none, "a search waits for one"))
    return found


def _caches(home: Path, given: lt.Spec | None) -> list[Finding]:
    """The folders of decoded images: the home's, those that the home's sweeps name, and the one that
    this spec names.
    """
    from lmoe_tune.data.rows import cache_of
    from lmoe_tune.sweep.folder import find_sweeps
    from lmoe_tune.sweep.view import read_spec

    specs = []
    for folder in find_sweeps(home):
        with suppress(LmoeTuneError, OSError):  # damaged: a finding about its sweep
            specs.append((f"the sweep {folder.name}", read_spec(folder).data))
    if given is not None:
        specs.append((f"the spec {given.name}", given.data))

    own = home / "cache"
    users: dict[Path, list[str]] = {own: []}
    limits: dict[Path, int | None] = {}
    for who, data in specs:
        if data.cache != "off" and (data.cache_dir or data.id.root):  # else they are embedded
            root = cache_of(data, home).root
            users.setdefault(root, []).append(who)
            limits[root] = data.cache_limit

    found = []
    for root, named in users.items():
        found += machine.cache(root, limits.get(root), named, in_home=root == own)
    return found


def _sweeps(home: Path) -> list[Finding]:
    from lmoe_tune.sweep.folder import closed_sweeps, find_sweeps, sweeps_without_ledger

    closed = [
        finding(
            "warn", f"sweep {folder.name}", str(folder.closed), "ask its owner to make it readable"
        )
        for folder in closed_sweeps(home)
    ]
    return [*closed, *map(_sweep, [*find_sweeps(home), *sweeps_without_ledger(home)])]


def _sweep(folder: SweepFolder) -> Finding:
    from lmoe_tune.sweep import copies, lines, rebuild, view

    what, ledger = f"sweep {folder.name}", None
    lacking: str | None = f"{folder.ledger} is gone"
    try:
        if folder.exists():
            ledger = view.read_sweep(folder)
            lacking = rebuild.behind(ledger)
    except lines.LedgerError as error:
        ledger, lacking = None, str(error)
    except (LmoeTuneError, OSError) as error:
        return finding("fail", what, str(error))

    if ledger is None or lacking is not None:
        fix = advice.doctor(rebuild=folder.name, home=folder.home)
        try:
            remains = f"{rebuild.survey(folder, view.read_spec(folder))} can be rebuilt"
        except (LmoeTuneError, OSError) as error:
            remains, fix = str(error), ""
        return finding("warn" if ledger else "fail", what, f"{lacking}; {remains}", fix)

    original = copies.original_of(ledger)
    if original is not None:
        return finding("warn", what, *copies.about_copy(ledger, original))

    state, fix = view.state_of(ledger), ""
    if state == "interrupted":
        fix = advice.resume(folder.name, home=folder.home)
    return finding("ok", what, f"{state}, {len(ledger.trials())} trials", fix)


def rebuild_ledger(home: Path, name: str) -> str:
    """Rebuild a sweep's ledger; returns what was done, in words.

    Raises:
        UsageError: there is no such sweep, or nothing is wrong with its ledger.
        LmoeTuneError: another process works on it, or nothing is left to rebuild it from.
    """
    from lmoe_tune.sweep.folder import SweepFolder, is_name
    from lmoe_tune.sweep.rebuild import rebuild, refuse_whole
    from lmoe_tune.sweep.view import read_spec
    from lmoe_tune.wording import did_you_mean, masked, printable

    folder = SweepFolder(home, name)
    if not (is_name(name) and folder.path.is_dir()):
        known = [path.name for path in (home / "sweeps").glob("*") if path.is_dir()]
        hint = did_you_mean(name, known)
        raise UsageError(f"no sweep '{printable(masked(name))}' in {home / 'sweeps'}{hint}")

    spec = read_spec(folder)
    with folder.locked():
        refuse_whole(folder, spec)
        remains, kept = rebuild(folder, spec)

    return (
        f"rebuilt {folder.ledger}: {remains}. The old file is kept as {kept.name}; "
        f"continue with: {advice.resume(name, home=home)}"
    )


def _tracking(home: Path) -> Finding:
    from lmoe_tune.tracking import ask, default_uri, shown

    uri = default_uri(home)
    try:
        caution = ask(uri)
    except TrackingAwayError as error:
        return finding("warn", "MLflow", str(error), "sweeps run without it and deliver later")
    except TrackingError as error:
        return finding("fail", "MLflow", str(error))

    if caution is not None:
        return finding("warn", "MLflow", caution)
    return finding("ok", "MLflow", shown(uri))
