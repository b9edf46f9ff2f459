"""One trial in this process, without Ray."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmoe_tune.api.loading import load_spec
from lmoe_tune.arguments import refuse_other, refuse_other_items
from lmoe_tune.data import load_search_data
from lmoe_tune.data.inspection import refuse_unsound
from lmoe_tune.data.rows import decode_ahead
from lmoe_tune.durable import read_text, write_durably, writing
from lmoe_tune.errors import UsageError
from lmoe_tune.home import resolve_home
from lmoe_tune.records import TrialRecord
from lmoe_tune.source_code import code_of
from lmoe_tune.spec import METHOD, METRICS, LoadedSpec, identity, load_params, resolved_yaml
from lmoe_tune.sweep import schema, view
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import refuse_unusable
from lmoe_tune.sweep.observer import Observer, hearing
from lmoe_tune.sweep.same_data import refuse_other_data
from lmoe_tune.training.platform import resolve_platform
from trainables import Method, configured, declaration_of

if TYPE_CHECKING:
    from lmoe_tune.training.trial import TrialEpoch


class SingleTrial:
    """A trial to iterate over: each step trains one epoch and gives its result.

    Started a second time, it continues after its last checkpoint, unless spec, parameters or code have
    changed since; epochs that were given before are in `epochs`. `resources` is a sweep's; its
    `epoch_timeout`, which ends a process, is ignored here, and the observer is told so.

    Attributes:
        folder: its checkpoints and records.
        method: the name of its method.
        params: every hyperparameter of the method.
        metrics: those of the newest epoch, by name; empty before the first.
        num_epochs: epochs trained so far.
    """

    def __init__(
        self,
        loaded: LoadedSpec,
        params: Mapping[str, Any],
        home: Path,
        observer: Observer,
        *,
        folder: Path | None = None,
    ) -> None:
        import_path = loaded.folder
        self._method: Method
        self._method, self.params = configured(loaded.spec, params, import_path)
        self.method = str(params.get(METHOD, loaded.spec.trainable))

        import torch  # seconds: the parameters are looked at first

        asked = loaded.spec.train.device
        self.spec = resolve_platform(
            loaded.spec, cuda=torch.cuda.is_available() if asked == "auto" else None
        )
        self._home, self._observer = home, observer
        of_code = code_of(self.spec, import_path)
        identified = json.dumps([identity(self.spec), self.params, of_code], sort_keys=True)
        key = hashlib.sha256(identified.encode()).hexdigest()[:8]
        self.folder = folder or home / "train" / f"{self.spec.name}-{key}"
        self._epochs = _read_epochs(self.folder)
        self._put_back_ours: Callable[[], None] | None = None

    @property
    def num_epochs(self) -> int:
        return max(self._epochs, default=0)

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self._epochs.get(self.num_epochs, {}))

    @property
    def epochs(self) -> dict[int, dict[str, float]]:
        """The metrics of every epoch so far."""
        return {epoch: dict(metrics) for epoch, metrics in self._epochs.items()}

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint."""
        return max((self.folder / "checkpoints").glob("epoch-*.pt"), default=None)

    def __iter__(self) -> Iterator[TrialEpoch]:
        """Train; raises TrainingError where a loss is not finite, UsageError where the data are not fit
        for a search.
        """
        from lmoe_tune.training.trial import run_trial

        spec, observer = self.spec, self._observer
        say = observer.on_message
        refuse_unsound(spec.data, self._home, observer.on_work, None if self._epochs else say)
        if spec.resources.epoch_timeout is not None:
            say("resources.epoch_timeout is ignored here: it ends a process, and is for sweeps")
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_durably(self.folder / "spec.yaml", resolved_yaml(spec).encode())
        write_durably(self.folder / "params.json", json.dumps(self.params, indent=1).encode())
        decode_ahead(
            load_search_data(spec.data, self._home).files(),
            spec.data,
            self._home,
            work=observer.on_work,
            say=say,
        )

        objective = self._method.objective(self.params)
        checkpoints = self.folder / "checkpoints"
        resources = spec.resources.model_copy(update={"epoch_timeout": None})
        spec = spec.model_copy(update={"resources": resources})
        epochs = run_trial(spec, objective, self.params, home=self._home, folder=checkpoints)
        while (result := self._next(epochs)) is not None:
            is_known = result.epoch in self._epochs  # the one that it continues from
            self._epochs[result.epoch] = result.metrics
            lines = [
                json.dumps({"epoch": epoch, "metrics": metrics}) + "\n"
                for epoch, metrics in sorted(self._epochs.items())
            ]
            write_durably(self.folder / "metrics.jsonl", "".join(lines).encode())
            if not is_known:
                yield result

    def _next(self, epochs: Iterator[TrialEpoch]) -> TrialEpoch | None:
        """The next epoch; torch is left as the user's program had it."""
        import torch

        from lmoe_tune.training.trial import settings_of_torch

        put_back_users = settings_of_torch()
        if self._put_back_ours is not None:
            self._put_back_ours()
        devices = [torch.cuda.current_device()] if self.spec.train.device == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                return next(epochs, None)
        finally:
            self._put_back_ours = settings_of_torch()
            put_back_users()


def train(
    spec: LoadedSpec | str | Path,
    params: Mapping[str, Any] | str | Path | None = None,
    *,
    home: str | Path | None = None,
    observer: Observer | None = None,
) -> SingleTrial:
    """One trial without Ray: `for epoch in train(spec): ...` trains it, an epoch per step.

    Args:
        spec: what `load_spec` gave, or what it takes.
        params: values of its parameters, or a YAML file with them; the defaults otherwise.
        home: where its records, baselines and decoded images are kept; as for `search`.
        observer: hears what happens before the first epoch.

    Raises:
        UsageError: there are no such parameters.
        SpecError: the file of parameters has problems.
    """
    refuse_other(params, "params", Mapping, str, Path, type(None))
    if isinstance(params, Mapping):
        refuse_other_items([*params], "names of params", str)
    if not isinstance(spec, LoadedSpec):
        spec = load_spec(spec, bounded=True)
    if isinstance(params, str | Path):
        params = load_params(Path(params), declaration_of(spec.spec, spec.folder))
    where = resolve_home(home)
    refuse_unusable(where)
    return SingleTrial(spec, params or {}, where, hearing(observer))


def repeat(ledger: Ledger, number: int, *, observer: Observer | None = None) -> SingleTrial:
    """A recorded trial of a sweep, to be trained once more from its record; `differences` compares
    the two.

    A repetition that was interrupted continues; one that was finished starts again.

    Raises:
        UsageError: there is no such trial, it has no recorded epoch, or the data have changed.
    """
    recorded = recorded_trial(ledger, number)
    refuse_other_data(ledger)
    home = ledger.folder.home
    folder = ledger.folder.repetition(number)
    if len(_read_epochs(folder)) >= len(recorded.epochs):
        shutil.rmtree(folder, ignore_errors=True)
    import_path = ledger.get(schema.IMPORT_PATH) or "."
    loaded = LoadedSpec(ledger.spec, Path(import_path) / "spec.yaml")
    return SingleTrial(loaded, recorded.params, home, hearing(observer), folder=folder)


def recorded_trial(ledger: Ledger, number: int) -> TrialRecord:
    """A trial with at least one epoch. Raises UsageError if there is none of that number."""
    trial = view.trial_of(ledger, number)
    if not trial.epochs:
        raise UsageError(
            f"trial {number} has no recorded epoch, so there is nothing to compare with"
        )
    return trial


def differences(
    recorded: TrialRecord, epochs: Mapping[int, Mapping[str, float]]
) -> dict[str, float]:
    """By metric, the largest distance of a repetition from the record; metrics that agree are not
    named.
    """
    found: dict[str, float] = {}
    for epoch in recorded.epochs:
        for name, value in epoch.metrics.items():
            measures_time = name in METRICS and not METRICS[name].searchable and name != "lr"
            if measures_time or name not in epochs.get(epoch.epoch, {}):
                continue
            distance = abs(epochs[epoch.epoch][name] - value)
            if distance > 0 or math.isnan(distance):
                found[name] = max(found.get(name, 0.0), distance)
    return found


def _read_epochs(folder: Path) -> dict[int, dict[str, float]]:
    try:
        lines = read_text(folder / "metrics.jsonl").splitlines()
    except FileNotFoundError:
        return {}
    try:
        return {record["epoch"]: record["metrics"] for record in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder / 'metrics.jsonl'}: is damaged; remove {folder} to train the trial again"
        ) from error
