"""One trial in this process, without Ray."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmoe_tune.data.decode_ahead import decode_ahead
from lmoe_tune.durable import read_text, write_durably
from lmoe_tune.errors import UsageError
from lmoe_tune.home import resolve_home
from lmoe_tune.spec import METHOD, LoadedSpec, identity, load_params, resolved_yaml
from lmoe_tune.sweep.observer import Observer
from lmoe_tune.training.platform import resolve_platform
from trainables import Method, configured, declaration_of

if TYPE_CHECKING:
    from lmoe_tune.training.trial import TrialEpoch


class SingleTrial:
    """A trial to iterate over: each step trains one epoch and gives its result.

    Begun a second time, it goes on after its last checkpoint.

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
    ) -> None:
        import_path = loaded.path.resolve().parent
        self._method: Method
        self._method, self.params = configured(loaded.spec, params, import_path)
        self.method = str(params.get(METHOD, loaded.spec.trainable))

        import torch  # seconds: the parameters are looked at first

        asked = loaded.spec.train.device
        self.spec = resolve_platform(
            loaded.spec, cuda=torch.cuda.is_available() if asked == "auto" else None
        )
        self._home, self._observer = home, observer
        identified = json.dumps([identity(self.spec), self.params], sort_keys=True)
        key = hashlib.sha256(identified.encode()).hexdigest()[:8]
        self.folder = home / "train" / f"{self.spec.name}-{key}"
        self._epochs = _read_epochs(self.folder)

    @property
    def num_epochs(self) -> int:
        return max(self._epochs, default=0)

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self._epochs.get(self.num_epochs, {}))

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint."""
        return max((self.folder / "checkpoints").glob("epoch-*.pt"), default=None)

    def __iter__(self) -> Iterator[TrialEpoch]:
        """Train; raises TrainingError where a loss is not finite."""
        from lmoe_tune.training.trial import run_trial

        spec = self.spec
        self._make_folder()
        write_durably(self.folder / "spec.yaml", resolved_yaml(spec).encode())
        write_durably(self.folder / "params.json", json.dumps(self.params, indent=1).encode())
        decode_ahead(
            spec.data,
            self._home,
            progress=lambda done, total: self._observer.on_work("images decoded", done, total),
            say=self._observer.on_message,
        )

        objective = self._method.objective(self.params)
        checkpoints = self.folder / "checkpoints"
        for result in run_trial(spec, objective, self.params, home=self._home, folder=checkpoints):
            self._epochs[result.epoch] = result.metrics
            self._write_epochs()
            yield result

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: cannot be made ({error.strerror}); choose another home with --home"
            ) from error

    def _write_epochs(self) -> None:
        lines = [
            json.dumps({"epoch": epoch, "metrics": self._epochs[epoch]}) + "\n"
            for epoch in sorted(self._epochs)
        ]
        write_durably(self.folder / "metrics.jsonl", "".join(lines).encode())


def train(
    spec: LoadedSpec,
    params: Mapping[str, Any] | Path | None = None,
    *,
    home: str | Path | None = None,
    observer: Observer | None = None,
) -> SingleTrial:
    """One trial without Ray: `for epoch in train(spec): ...` trains it, an epoch per step.

    Args:
        spec: what `load_spec` gave.
        params: values of its parameters, or a YAML file with them; the defaults otherwise.
        home: where its records, baselines and decoded images are kept; as for `search`.
        observer: hears what happens before the first epoch.

    Raises:
        UsageError: there are no such parameters.
        SpecError: the file of parameters has problems.
    """
    if isinstance(params, Path):
        params = load_params(params, declaration_of(spec.spec, spec.path.resolve().parent))
    return SingleTrial(spec, params or {}, resolve_home(home), observer or Observer())


def _read_epochs(folder: Path) -> dict[int, dict[str, float]]:
    try:
        lines = read_text(folder / "metrics.jsonl").splitlines()
    except FileNotFoundError:
        return {}
    return {record["epoch"]: record["metrics"] for record in map(json.loads, lines)}
