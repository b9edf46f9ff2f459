"""Where a sweep is in MLflow: its store's address, and the ids of its runs, in a file beside the
ledger.

`tracking.jsonl` has a line for each thing that was learnt, and is only appended to, by the holder
of the sweep's lock. A resume needs nothing in it: `sync` finds all of it again, so it is not synced
to the disk, and a line that is torn or unknown is skipped. The ledger itself is not used for this:
Optuna copies what belongs to a study as a whole whenever it is asked for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmoe_tune import advice
from lmoe_tune.durable import writing
from lmoe_tune.errors import TrackingError
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.tracking import Place, absolute, default_uri, from_environment, shown
from lmoe_tune.tracking.address import is_server
from lmoe_tune.tracking.comparison import sweep_key, view_page

FILE = "tracking.jsonl"
Line = Mapping[str, Any]


@dataclass
class Tracked:
    """Where one server shows the sweep; ids that it has not given yet are missing.

    Attributes:
        uri: of the server, without credentials.
        experiment: the name that the spec gave it.
        called: its name in MLflow, which users may change there.
        models, run_ids: an id for a trial's number.
        runs: how many of the sweep's runs it has whole.
    """

    uri: str
    folder: SweepFolder
    experiment: str | None = None
    called: str | None = None
    experiment_id: str | None = None
    parent_run_id: str | None = None
    models: dict[int, str] = field(default_factory=dict)
    run_ids: dict[int, str] = field(default_factory=dict)
    runs: int | None = None

    def run_of(self, trial: int) -> tuple[str, str]:
        """The experiment, and the run that something about a trial belongs to: the trial's own,
        else the sweep's.

        Raises:
            TrackingError: MLflow does not have the sweep.
        """
        run_id = self.run_ids.get(trial) or self.parent_run_id
        if run_id is None or self.experiment_id is None:
            deliver = advice.sync(self.folder.whole.name, home=self.folder.home)
            raise TrackingError(
                f"MLflow at {self.uri} does not have this sweep yet; first type: {deliver}"
            )
        return self.experiment_id, run_id

    @property
    def place(self) -> Place | None:
        """Where its runs are, if the server has any."""
        if self.experiment is None or self.experiment_id is None or self.parent_run_id is None:
            return None
        return Place(self.experiment, self.experiment_id, self.parent_run_id)

    def take(self, line: Line) -> None:
        """One thing that was learnt."""
        if "run_id" in line:
            self.run_ids[int(line["trial"])] = line["run_id"]
        if "parent_run_id" in line:
            self.experiment, self.called = line.get("experiment"), line.get("called")
            self.experiment_id = line["experiment_id"]
            self.parent_run_id = line["parent_run_id"]
        if "models" in line:
            self.models = {int(number): model for number, model in line["models"].items()}
        self.runs = line.get("runs", self.runs)


def tracked(folder: SweepFolder, uri: str) -> Tracked:
    """What is known of a sweep on this server."""
    found = Tracked(shown(uri), folder)
    for line in _lines(folder.path / FILE):
        if line.get("server") == found.uri:
            found.take(line)

    return found


def append(folder: SweepFolder, lines: Iterable[Line]) -> None:
    """Write down what was learnt. The caller holds the sweep's lock.

    Raises:
        StorageError: the file cannot be written.
    """
    path = folder.path / FILE
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with writing(path), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # torn by a kill
                text = f"\n{text}"
        file.write(text.encode())


def address(folder: SweepFolder, spec: Spec) -> str:
    """Where the sweep is tracked: the spec's address, else MLFLOW_TRACKING_URI, else a database
    under the home.

    A relative path is resolved once, when the sweep starts, wherever a later command is typed.
    """
    given = spec.tracking.uri or from_environment()
    if given is None:
        return default_uri(folder.home)

    uri = absolute(given, Path.cwd())
    if uri == given:
        return uri

    return _remembered(folder, given) or uri


def remember_address(folder: SweepFolder, spec: Spec) -> None:
    """Write down what a relative path means here. The caller holds the sweep's lock."""
    given = spec.tracking.uri or from_environment()
    uri = address(folder, spec)
    if given is not None and uri != given and _remembered(folder, given) is None:
        append(folder.whole, [{"given": given, "address": uri}])


def _remembered(folder: SweepFolder, given: str) -> str | None:
    lines = _lines(folder.whole.path / FILE)
    return next((str(line["address"]) for line in lines if line.get("given") == given), None)


def page_of(folder: SweepFolder, uri: str, sweep_id: str) -> str:
    """The page that compares the sweep's trials, below MLflow's address; empty before there is one."""
    found = tracked(folder, uri)
    if found.experiment_id is None:
        return ""
    return view_page(found.experiment_id, sweep_key(sweep_id))


def comparison(folder: SweepFolder, spec: Spec, sweep_id: str) -> str:
    """How to see the trials side by side in MLflow: a link, or what to type where no server shows
    them yet.
    """
    uri = address(folder, spec)
    page = page_of(folder, uri, sweep_id)
    if not (is_server(uri) and page):
        return advice.ui(folder.whole.name, home=folder.home)
    return f"{shown(uri).rstrip('/')}/{page}"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return

    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line
