"""`lmoe-tune train`: one trial in this process, without Ray."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import typer

from lmoe_tune.cli.decoding import decode_ahead
from lmoe_tune.cli.output import params_line, print_json, say, shown
from lmoe_tune.durable import read_text, write_durably
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import METHOD, LoadedSpec, identity, load_params, resolved_yaml
from lmoe_tune.training.platform import resolve_platform
from trainables import configured, declaration_of


def train_one(loaded: LoadedSpec, params_file: Path | None, home: Path, *, as_json: bool) -> None:
    """Train one trial and print its last epoch; its checkpoints and epochs are kept under `HOME/train/`."""
    import_path = loaded.path.resolve().parent
    given = (
        load_params(params_file, declaration_of(loaded.spec, import_path)) if params_file else {}
    )

    import torch  # seconds: the parameters are looked at first

    from lmoe_tune.training.trial import run_trial

    asked = loaded.spec.train.device
    spec = resolve_platform(
        loaded.spec, cuda=torch.cuda.is_available() if asked == "auto" else None
    )
    method, params = configured(spec, given, import_path)
    key = hashlib.sha256(json.dumps([identity(spec), params], sort_keys=True).encode()).hexdigest()[
        :8
    ]
    folder = home / "train" / f"{spec.name}-{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be made ({error.strerror}); choose another home with --home"
        ) from error
    write_durably(folder / "spec.yaml", resolved_yaml(spec).encode())
    write_durably(folder / "params.json", json.dumps(params, indent=1).encode())
    say(
        f"{spec.trainable} on {spec.data.id.dataset}, {spec.train.device}, {spec.train.precision}; records in {folder}"
    )
    decode_ahead(spec.data, home)
    epochs: dict[int, dict[str, float]] = _read_epochs(folder)
    for result in run_trial(
        spec, method.objective(params), params, home=home, folder=folder / "checkpoints"
    ):
        epochs[result.epoch] = result.metrics
        lines = "".join(
            json.dumps({"epoch": epoch, "metrics": epochs[epoch]}) + "\n"
            for epoch in sorted(epochs)
        )
        write_durably(folder / "metrics.jsonl", lines.encode())
        shown_metrics = {
            key: result.metrics.get(key)
            for key in ("train_loss", "val_accuracy", spec.objective.metric)
        }
        say(f"epoch {result.epoch}/{spec.train.epochs}: {params_line(shown_metrics)}")
    last = epochs[max(epochs)]
    checkpoint = max((folder / "checkpoints").glob("epoch-*.pt"), default=None)
    document: dict[str, Any] = {
        "trainable": given.get(METHOD, spec.trainable),
        "params": params,
        "epochs": max(epochs),
        "metrics": last,
        "folder": str(folder),
        "checkpoint": str(checkpoint) if checkpoint else None,
    }
    if as_json:
        print_json(document)
        return
    for name, value in last.items():
        typer.echo(f"{name:24}  {shown(value)}")


def _read_epochs(folder: Path) -> dict[int, dict[str, float]]:
    try:
        lines = read_text(folder / "metrics.jsonl").splitlines()
    except FileNotFoundError:
        return {}
    return {record["epoch"]: record["metrics"] for record in map(json.loads, lines)}
