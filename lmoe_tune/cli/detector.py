"""Commands for production: export and predict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lmoe_tune as lt
from lmoe_tune import advice
from lmoe_tune.cli.options import HomeOption, JsonOption, NameArgument, resolve_home
from lmoe_tune.cli.output import print_json, print_table, say, shown
from lmoe_tune.errors import UsageError
from lmoe_tune.wording import counted, printable

if TYPE_CHECKING:
    from lmoe_tune.sweep.ledger import Ledger

app = typer.Typer()


@app.command()
def export(
    name: NameArgument,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The folder to write; an older export there is replaced."),
    ],
    trial: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="A trial; the confirmed winner by default, else the best trial.",
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx as well.")] = False,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Register it in MLflow's model registry under this name."
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write a sweep's winner as a detector that runs by itself: model, preprocessing, classes,
    score, threshold.
    """
    sweep = lt.open_sweep(name, resolve_home(home))
    found = sweep.export(out, trial=trial, onnx=onnx, register=register)
    about, registered = found.document, found.registered
    if as_json:
        print_json({"folder": str(out), **about, "registered": registered})
        return
    typer.echo(str(out))
    if trial is None and sweep.state != "complete":
        say(f"the sweep '{name}' is not complete; this is the best so far")
    say(f"{about['name']} ({found.verdict or 'not confirmed'})")
    if about["caution"]:
        say(f"caution: {about['caution']}")
    if found.verdict == "worse":
        say(_rather_the_defaults(sweep.ledger, found.method, out))
    measured = about["threshold_measured"]
    say(
        f"is_ood is {about['score']} < {about['threshold']:.6g}, which keeps {measured['tpr']:.1%} of "
        f"{measured['images']} in-distribution validation images"
    )
    if registered is not None:
        say(f"registered as models:/{registered['name']}/{registered['version']}")
    say(f"to use it: {advice.predict(out)}")


def _rather_the_defaults(ledger: Ledger, method: str, out: Path) -> str:
    """What to say about a winner that a confirmation found to be worse than its method's
    defaults.
    """
    from lmoe_tune.confirmation.plan import trial_at_defaults

    name, home = ledger.folder.name, ledger.folder.home
    import_path = Path(ledger.attrs.get("import_path", home))
    trial = trial_at_defaults(ledger, method, import_path)
    text = f"the confirmation found it worse than {method} at its defaults"
    if trial is None:
        return f"{text}, which no complete trial had"

    text = f"{text}; use these instead, trial {trial}"
    if not any(ledger.folder.checkpoints(trial).glob("epoch-*.pt")):
        return f"{text}, whose weights are not kept: {advice.repeat(name, trial, home=home)}"

    instead = out.with_name(f"{out.name}-defaults")
    return f"{text}: {advice.export(name, instead, trial=trial, home=home)}"


@app.command()
def predict(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that export has written.")
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Run an exported detector: class, score, and whether an image is out-of-distribution."""
    from lmoe_tune.data.decode import CorruptImageError

    detector = lt.load_detector(folder)
    below = (_images_below(path) if os.path.isdir(path) else [path] for path in images)
    paths = [path for some in below for path in some]
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for path, found in zip(paths, detector.each(paths), strict=True):
        if isinstance(found, CorruptImageError):
            broken.append(str(found))
        else:
            row = {"image": str(path), "class": found.label, "score": found.score}
            rows.append(row | {"is_ood": found.is_ood})

    if as_json:
        print_json(rows)
    elif rows:
        cells = [
            [printable(row["image"]), row["class"], f"{row['score']:.6g}", shown(row["is_ood"])]
            for row in rows
        ]
        print_table(cells, ("image", "class", "score", "is_ood"))
    for text in broken:
        say(f"error: {printable(text)}")
    if broken:
        say(f"{len(broken)} of {counted(len(paths), 'image')} cannot be read")
        raise typer.Exit(2)


def _images_below(folder: Path) -> list[Path]:
    from lmoe_tune.readers.files import images_below

    found = [folder / name for name in images_below(folder)]
    if not found:
        raise UsageError(
            f"{folder}: there is no image in this folder; name image files, or a folder with some"
        )
    return found
