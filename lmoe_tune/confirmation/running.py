"""A confirmation from its first check to its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Protocol, overload

from lmoe_tune import advice
from lmoe_tune.arguments import refuse_other, refuse_other_items
from lmoe_tune.confirmation.asking import ask
from lmoe_tune.confirmation.forecast import Forecast, forecast_of
from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import (
    CONFIRM,
    RESEED,
    Candidate,
    Plan,
    make_plan,
    make_reseeding,
    with_taken_seeds,
)
from lmoe_tune.confirmation.reseeding import Reseeding, conclude_reseeding
from lmoe_tune.confirmation.result import Confirmation, conclude, fingerprints_of, write_result
from lmoe_tune.confirmation.tuned_comparators import open_search, tunable, tuned_candidate
from lmoe_tune.data.rows import decode_ahead
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.sweep import projector, view
from lmoe_tune.sweep.cluster import refuse_unusable
from lmoe_tune.sweep.copies import refuse_copy
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.observer import Observer, hearing
from lmoe_tune.sweep.runner import run_sweep
from lmoe_tune.sweep.settings import Leave, RunSettings
from lmoe_tune.sweep.tracked import address as address_of
from lmoe_tune.tracking import refuse_closed
from lmoe_tune.wording import counted

if TYPE_CHECKING:
    from trainables.worker import TrialWorker

NUM_SEEDS = 5
"""Fresh seeds of a confirmation, unless the caller says how many."""
MOST = 10_000
"""Seeds, or best trials: a plan is held in memory whole."""


class HasFolder(Protocol):
    """A sweep, as `lmoe_tune.open_sweep` gives it."""

    @property
    def folder(self) -> SweepFolder: ...


class InterruptedConfirmation(LmoeTuneError, KeyboardInterrupt):
    """It was stopped, by a signal or `stop`; `command` continues it, and so does the same call."""

    def __init__(self, command: str) -> None:
        super().__init__(f"interrupted; to continue: {command}")
        self.command = command


@dataclass(frozen=True)
class _How:
    """The settings of a confirmation."""

    settings: RunSettings
    command: str


@overload
def confirm(
    sweep: HasFolder,
    *,
    reseed: int,
    top: int = 3,
    allow_unfinished: bool = False,
    allow_changes: bool = False,
    address: str | None = None,
    observer: Observer | None = None,
    stop: Event | None = None,
    leave: Leave | None = None,
) -> Reseeding: ...
@overload
def confirm(
    sweep: HasFolder,
    *,
    seeds: int = NUM_SEEDS,
    top: int = 3,
    splits: Sequence[int] | None = None,
    tuned_comparators: bool = False,
    reseed: None = None,
    allow_unfinished: bool = False,
    allow_changes: bool = False,
    address: str | None = None,
    observer: Observer | None = None,
    stop: Event | None = None,
    leave: Leave | None = None,
) -> Confirmation: ...
def confirm(
    sweep: HasFolder,
    *,
    seeds: int = NUM_SEEDS,
    top: int = 3,
    splits: Sequence[int] | None = None,
    tuned_comparators: bool = False,
    reseed: int | None = None,
    allow_unfinished: bool = False,
    allow_changes: bool = False,
    address: str | None = None,
    observer: Observer | None = None,
    stop: Event | None = None,
    leave: Leave | None = None,
) -> Confirmation | Reseeding:
    """Train the best trials of a sweep and the untuned methods again, and open the sealed test set.

    What an earlier call has done is not repeated; everything that exists counts.

    Args:
        sweep: as `open_sweep` or `search` gives it.
        seeds: how many fresh seeds each row is trained with.
        top: how many of the best trials are rows.
        splits: of the data; None: the spec's.
        tuned_comparators: tune the other methods too, each with the search's own budget.
        reseed: before all that: train the best trials and the defaults with so many fresh seeds,
            validate them as the search did, and open nothing. `seeds`, `splits` and
            `tuned_comparators` do not go with it.
        allow_unfinished: continue although the search is not complete; the result says so.
        allow_changes: continue although code or data changed; the result says so.
        address: of a Ray cluster to join; see `search`.
        observer: hears what happens; `on_begin` comes with each study that is worked on.
        stop: set it from another thread to stop cleanly.
        leave: as for `search`.

    Raises:
        UsageError: an argument is not as it must be, the search is not complete, or something has
            changed.
        SweepLockedError: another process works on the sweep.
        InterruptedConfirmation: it was stopped.
        LmoeTuneError: no training of the winner and its defaults ended well.
    """
    folder = _checked(sweep, seeds, top, splits, reseed)
    given = {"splits": splits is not None, "tuned_comparators": tuned_comparators}
    given["seeds"] = seeds != NUM_SEEDS
    beside = ", ".join(name for name, is_given in given.items() if is_given)
    if reseed is not None and beside:
        raise UsageError(
            f"reseed does not go with {beside}: it trains on the spec's own split, tunes nothing, and says itself "
            "what a confirmation could find"
        )
    settings = RunSettings(
        hearing(observer),
        allow_changes=allow_changes,
        address=address,
        stop=stop,
        leave=leave,
    )
    refuse_unusable(address)
    command = advice.confirm(
        folder.name,
        seeds=seeds,
        top=top,
        splits=splits,
        tuned_comparators=tuned_comparators,
        allow_unfinished=allow_unfinished,
        reseed=reseed,
        home=folder.home,
    )
    how = _How(settings, command)
    if stop is not None and stop.is_set():  # before an opening is recorded
        raise InterruptedConfirmation(command)

    with folder.locked(), folder.confirmation.locked():
        ledger = Ledger.writing(folder, view.read_spec(folder))
        refuse_copy(ledger)
        import_path = _import_path(ledger)
        notes = _refuse_unfinished(ledger, allowed=allow_unfinished, opens=reseed is None)
        if reseed is not None:
            return _reseed(ledger, import_path, how, top=top, num_seeds=reseed)
        plan = make_plan(ledger, import_path, top=top, num_seeds=seeds, splits=splits)
        study = JobLedger(ledger, import_path)
        if plan.winner_is_default and not study.is_done(plan):
            how.settings.observer.on_message(_no_gain(plan, ledger))
        tuned = _tune(ledger, import_path, how) if tuned_comparators else []
        plan = replace(plan, others=(*plan.others, *tuned))
        for note in (*notes, *plan.notes):
            how.settings.observer.on_message(note)

        if not study.is_done(plan):
            plan = with_taken_seeds(plan, ledger)
            _train(study, plan, how)
        result = conclude(study, plan, notes=notes)
        write_result(study, result)
        _deliver(study, result, how.settings.observer)
        return result


def forecast(
    sweep: HasFolder,
    *,
    seeds: int = NUM_SEEDS,
    top: int = 3,
    splits: Sequence[int] | None = None,
    tuned_comparators: bool = False,
) -> Forecast:
    """What `confirm` with these arguments would cost, and what it could find; nothing is trained,
    opened or recorded.

    With `tuned_comparators`, its notes name the searches that come first; they and the jobs of what
    they find are not counted.

    Raises:
        UsageError: as `confirm`.
    """
    ledger = view.read_sweep(_checked(sweep, seeds, top, splits))
    import_path = _import_path(ledger)
    plan = make_plan(ledger, import_path, top=top, num_seeds=seeds, splits=splits)
    study = JobLedger(ledger, import_path, is_writing=False)
    refusals = [f"{note} (--allow-unfinished continues)" for note in _unfinished(ledger)]
    tuned, to_come = _tuned_so_far(ledger, import_path) if tuned_comparators else ([], [])
    if plan.winner_is_default and not study.is_done(plan):
        to_come.append(_no_gain(plan, ledger))
    plan = replace(plan, others=(*plan.others, *tuned), notes=(*plan.notes, *to_come))
    found = forecast_of(study, plan)
    return replace(found, refusals=(*refusals, *found.refusals))


def _tuned_so_far(sweep: Ledger, import_path: Path) -> tuple[list[Candidate], list[str]]:
    """What the searches of the other methods have found, and a note for each that comes first."""
    found, to_come = [], []
    for method in tunable(sweep.spec):
        folder = sweep.folder.tuned(method)
        search = view.read_sweep(folder) if folder.exists() else None
        if search is None or not search.is_complete():
            trials = sweep.budget.trials or "as many trials as the search had"
            to_come.append(
                f"{method} is tuned first, in a search of {trials} trials; that and its jobs are not counted here"
            )
        elif (candidate := tuned_candidate(search, import_path)) is not None:
            found.append(candidate)
    return found, to_come


def _no_gain(plan: Plan, sweep: Ledger) -> str:
    """What to say of a winner with its method's defaults before the test set is opened for it."""
    name, home = sweep.folder.name, sweep.folder.home
    more = "+8" if sweep.budget.trials else None
    text = (
        f"{plan.winner.name} is the best of '{name}' and has exactly the defaults of {plan.winner.method}, so there is "
        "no gain to confirm: the verdict is 'noise', the table compares the methods, and no question is counted. "
        f"To search on: {advice.resume(name, trials=more, home=home)}; to try fresh seeds on the validation images: "
        f"{advice.confirm(name, reseed=3, home=home)}"
    )
    if tunable(sweep.spec):
        tuned = advice.confirm(name, tuned_comparators=True, home=home)
        text += f"; to tune the other methods, too: {tuned}"
    return text


def _checked(
    sweep: HasFolder,
    seeds: int,
    top: int,
    splits: Sequence[int] | None,
    reseed: int | None = None,
) -> SweepFolder:
    """The folder of a sweep; refuses arguments that are not as they must be."""
    if not isinstance(getattr(sweep, "folder", None), SweepFolder):
        raise UsageError(f"sweep is {sweep!r}, but must be what `open_sweep` or `search` gives")

    luck = ": one run says nothing about luck (5 are better)"
    counts = {"seeds": (seeds, 2, luck), "top": (top, 1, "")}
    if reseed is not None:
        counts["reseed"] = (reseed, 2, luck)
    for called, (count, least, why) in counts.items():
        refuse_other(count, called, int)
        if count < least:
            raise UsageError(f"{called} is {count}, but must be at least {least}{why}")
        if count > MOST:
            raise UsageError(f"{called} is {count}, but must be at most {MOST}")

    if splits is not None:
        refuse_other_items(splits, "splits", int)
        if not splits or min(splits) < 0 or len(set(splits)) < len(splits):
            raise UsageError(
                f"splits is {list(splits)}, but must be one or more different numbers from 0 on"
            )
    return sweep.folder


def _import_path(ledger: Ledger) -> Path:
    return Path(ledger.attrs.get("import_path", Path.cwd()))


def _unfinished(sweep: Ledger) -> list[str]:
    if sweep.is_complete():
        return []

    planned = sweep.budget.trials or "an open number"
    return [f"the search was not complete: {len(sweep.trials())} trials of {planned}"]


def _refuse_unfinished(sweep: Ledger, *, allowed: bool, opens: bool) -> list[str]:
    """What is to be said of a search that goes on; `opens`: the test set would be opened."""
    name, found = sweep.folder.name, _unfinished(sweep)
    if found and not allowed:
        why = "so other trials may become its best"
        if opens:
            why = "and a test set that is opened in the middle of a search tempts you to search on by what it says"
        raise UsageError(
            f"the sweep '{name}' is not complete, {why}; finish the search with "
            f"`{advice.resume(name, home=sweep.folder.home)}`, or continue with --allow-unfinished"
        )
    return found


def _train(study: JobLedger, plan: Plan, how: _How) -> None:
    """Test the rows of a plan: from here on the test set counts as opened."""
    observer = how.settings.observer
    # Before the opening is recorded: nothing may be started into a store that refuses.
    caution = refuse_closed(address_of(study.sweep.folder, study.sweep.spec))
    if caution is not None:
        observer.on_message(caution)
    _begin(study, plan, how)
    openings = view.test_openings(study.sweep)
    text = (
        f"confirming '{study.sweep.folder.name}': {study.work_in_words(plan)}; this is opening {len(openings)} of its "
        "test set"
    )
    if not plan.winner_is_default:
        question = ask(study, plan, fingerprints_of(study, plan))
        text += f", and question {question.number} of the home"
    observer.on_message(text)
    waiting = study.num_waiting(RESEED)
    if waiting:
        observer.on_message(
            f"first, {counted(waiting, 'job')} of its reseeding, which has not ended"
        )
    _run_jobs(study, plan, how)


def _begin(study: JobLedger, plan: Plan, how: _How) -> None:
    settings = how.settings
    study.begin(
        plan, how.command, allow_changes=settings.allow_changes, say=settings.observer.on_work
    )


def _run_jobs(study: JobLedger, plan: Plan, how: _How) -> None:
    """Run what waits; the images that the jobs will read are decoded before, once for all of them."""
    observer = how.settings.observer
    if how.settings.address is None or study.ledger.spec.data.cache_dir is None:
        # else each node decodes for itself
        for data, files in study.files(plan):
            home = study.folder.home
            decode_ahead(files, data, home, work=observer.on_work, say=observer.on_message)
    _run(study.ledger, study.import_path, how)


def _reseed(sweep: Ledger, import_path: Path, how: _How, *, top: int, num_seeds: int) -> Reseeding:
    """Train the best trials and the defaults over fresh seeds, and validate them; the test set
    stays shut.
    """
    study = JobLedger(sweep, import_path)
    waiting = study.num_waiting(CONFIRM)
    if waiting:
        confirmation = study.ledger.resume_command
        raise UsageError(
            f"reseeding opens nothing, but {counted(waiting, 'waiting job')} of a confirmation would; finish it first: "
            f"{confirmation}"
        )

    plan = make_reseeding(sweep, import_path, top=top, num_seeds=num_seeds)
    for note in plan.notes:
        how.settings.observer.on_message(note)
    if not study.is_done(plan):
        plan = with_taken_seeds(plan, sweep)
        _begin(study, plan, how)
        how.settings.observer.on_message(
            f"reseeding '{sweep.folder.name}': {study.work_in_words(plan)}, on the validation images; the test "
            "set stays sealed"
        )
        _run_jobs(study, plan, how)

    planned = make_plan(sweep, import_path, top=top, num_seeds=NUM_SEEDS)
    result = conclude_reseeding(study, plan, planned)
    if not view.is_delivered(study.ledger):
        _deliver_rest(study, how.settings.observer)
    return result


def _tune(sweep: Ledger, import_path: Path, how: _How) -> list[Candidate]:
    """The other methods, tuned: those whose search is not complete are searched now, one after the
    other.
    """
    found = []
    for method in tunable(sweep.spec):
        folder = sweep.folder.tuned(method)
        with folder.locked():
            ledger = open_search(
                sweep, method, import_path, how.command, allow_changes=how.settings.allow_changes
            )
            if not ledger.is_complete():
                trials = ledger.budget.trials or "no fixed number of"
                how.settings.observer.on_message(
                    f"tuning {method} in {folder.path} ({trials} trials)"
                )
                _run(ledger, import_path, how)
            elif not view.is_delivered(ledger):
                uri = address_of(folder, ledger.spec)
                projector.deliver_rest(ledger, uri, how.settings.observer)
            candidate = tuned_candidate(ledger, import_path)
        if candidate is None:
            how.settings.observer.on_message(
                f"{method}: no trial of its search is complete, so it is not in the table"
            )
        else:
            found.append(candidate)
    return found


def _run(ledger: Ledger, import_path: Path, how: _How) -> None:
    worker: type[TrialWorker] | None = None
    if ledger.has_jobs:
        from lmoe_tune.confirmation.worker import JobWorker

        worker = JobWorker

    uri = address_of(ledger.folder, ledger.spec)
    try:
        how.settings.observer.on_begin(ledger)
        outcome = run_sweep(
            ledger, how.settings, import_path=import_path, tracking_uri=uri, worker=worker
        )
    except KeyboardInterrupt:
        raise InterruptedConfirmation(how.command) from None
    if outcome.state == "interrupted":
        raise InterruptedConfirmation(how.command)


def _deliver(study: JobLedger, result: Confirmation, observer: Observer) -> None:
    """Deliver the verdict to MLflow, and everything that a killed run left undelivered."""
    found = {"verdict": result.verdict, "verdict_sentence": result.sentence}
    is_news = any(study.ledger.attrs.get(key) != value for key, value in found.items())
    study.ledger.set_attrs(found)
    if is_news or not view.is_delivered(study.ledger):
        _deliver_rest(study, observer)


def _deliver_rest(study: JobLedger, observer: Observer) -> None:
    uri = address_of(study.folder, study.ledger.spec)
    if not projector.deliver_rest(study.ledger, uri, observer):
        sync = advice.sync(study.sweep.folder.name, home=study.folder.home)
        observer.on_message(f"MLflow does not have everything yet; to deliver it: {sync}")
