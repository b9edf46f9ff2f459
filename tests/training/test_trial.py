from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lmoe_tune import checkpoint
from lmoe_tune.data import SearchData, load_search_data
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.description import KEY, ModelDescription
from lmoe_tune.errors import TrainingError, UsageError
from lmoe_tune.methods.objective import Objective
from lmoe_tune.placements import read_placements
from lmoe_tune.spec import Spec
from lmoe_tune.testing.methods import objective_of
from lmoe_tune.training import trial
from lmoe_tune.training.trial import TrialEpoch, describe_model, run_trial, settings_of


def logit_mixoe(**params: Any) -> Objective:
    """The objective; what is not given has its declared default."""
    return objective_of("logit_mixoe", **params)


MakeSpec = Callable[..., Spec]
TIMINGS = {"epoch_s", "images_per_s"}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests of this file: they share its baseline."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def spec(make_spec: MakeSpec) -> Spec:
    return make_spec("train.epochs=3", "model.baseline.epochs=1")


@pytest.fixture
def few_images(
    tiny_data: SearchData, tiny_images: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "load_search_data", lambda data, home: tiny_data)
    monkeypatch.setattr(trial, "_images_on", lambda *_: tiny_images)


@pytest.fixture
def start(
    few_images: None, spec: Spec, home: Path, tmp_path: Path
) -> Callable[..., Iterator[TrialEpoch]]:
    def start(
        folder: str = "trial", objective: Objective | None = None, spec: Spec = spec, **params: Any
    ) -> Iterator[TrialEpoch]:
        objective = objective or logit_mixoe(outlier_ratio=0.6, per="sample")
        return run_trial(spec, objective, params, home=home, folder=tmp_path / folder)

    return start


def numbers(results: list[TrialEpoch]) -> list[tuple[int, dict[str, float]]]:
    return [
        (
            result.epoch,
            {name: value for name, value in result.metrics.items() if name not in TIMINGS},
        )
        for result in results
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load_newest(folder)
    assert state is not None
    return state["model"]


def assert_same_weights(first: Path, second: Path) -> None:
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_a_trial_yields_its_epochs_with_the_metrics_of_its_baseline(start) -> None:
    results = list(start())
    assert [result.epoch for result in results] == [1, 2, 3]
    assert len({result.baseline_key for result in results}) == 1
    assert all(result.baseline == results[0].baseline for result in results)
    assert {"val_accuracy", "val_auroc"} <= results[0].baseline.keys()
    assert results[0].baseline != results[0].metrics


def test_a_checkpoint_is_there_before_its_epoch_is_told(start, tmp_path: Path) -> None:
    for result in start():
        newest = checkpoint.list_newest_first(tmp_path / "trial")[0]
        assert checkpoint.epoch_of(newest) == result.epoch
        assert checkpoint.load(newest)["metrics"] == result.metrics
        assert KEY in torch.load(newest, weights_only=True), (
            "MLflow's model reads it with torch alone"
        )


def test_a_trial_starts_from_the_baseline(start, spec: Spec, home: Path) -> None:
    """With a vanishing learning rate and fixed statistics everything measured stays."""
    tiny = spec.model_copy(update={"train": spec.train.model_copy(update={"min_lr": 1e-30})})
    first = next(start(objective=logit_mixoe(batch_norm="frozen"), spec=tiny, lr=1e-30))
    for name, value in first.baseline.items():
        if name.startswith("val_"):
            assert first.metrics[name] == value, name


def test_the_parameters_may_say_learning_rate_and_weight_decay(spec: Spec) -> None:
    assert settings_of(spec, {}).lr == spec.train.lr
    assert settings_of(spec, {}).weight_decay == spec.train.weight_decay
    found = settings_of(spec, {"lr": None, "weight_decay": None, "mixing_alpha": 3.0})
    assert found == settings_of(spec, {})
    found = settings_of(spec, {"lr": 0.5, "weight_decay": 0.0})
    assert (found.lr, found.weight_decay) == (0.5, 0.0)


def test_the_settings_are_those_of_the_spec(make_spec: MakeSpec) -> None:
    spec = make_spec(
        "train.precision=bf16", "train.seed=5", "objective.score=energy", "train.momentum=0.5"
    )
    found = settings_of(spec, {})
    assert (found.bf16, found.seed, found.score, found.momentum) == (True, 5, "energy", 0.5)
    assert (found.epochs, found.batch_size, found.min_lr) == (2, 32, 1e-6)


@pytest.mark.parametrize("done", [1, 2])
def test_an_interrupted_trial_tells_its_last_epoch_again_and_goes_on_to_the_same_bits(
    start, tmp_path: Path, done: int
) -> None:
    whole = list(start("whole"))
    results = start("parts")
    parts = [next(results) for _ in range(done)]
    results.close()
    rest = list(start("parts"))
    assert rest[0] == parts[-1], "to the timings: it is the recorded epoch and not another one"
    assert [result.epoch for result in rest] == list(range(done, 4))
    assert numbers(parts + rest[1:]) == numbers(whole)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.precision
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_in_either_precision_a_trial_goes_on_to_the_same_bits(
    start, spec: Spec, tmp_path: Path, precision: str
) -> None:
    train = spec.train.model_copy(update={"precision": precision})
    exact = spec.model_copy(update={"train": train})
    whole = list(start("whole", spec=exact))
    parts = [next(start("parts", spec=exact))]
    parts += list(start("parts", spec=exact))[1:]
    assert numbers(parts) == numbers(whole)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert {value.dtype for value in weights(tmp_path / "whole").values()} <= {
        torch.float32,
        torch.int64,
    }
    state = checkpoint.load_newest(tmp_path / "whole")
    assert state is not None
    described = ModelDescription.of_record(state[KEY], whose="it", fix="")
    assert described.precision == precision


def test_what_tells_trials_apart_is_kept_of_the_last_epoch(start, tmp_path: Path) -> None:
    epochs = start("trials/7/checkpoints")
    next(epochs)
    assert read_placements(tmp_path / "trials" / "7") is None
    *_, last = epochs
    found = read_placements(tmp_path / "trials" / "7")
    for metric in ("val_auroc", "val_fine_auroc", "val_coarse_auroc"):
        assert found.auroc(metric) == pytest.approx(last.metrics[metric], abs=1e-12)


def test_a_trial_that_was_finished_only_tells_its_last_epoch(start) -> None:
    results = list(start())
    assert list(start()) == results[-1:]


@pytest.fixture
def measured(
    few_images: None, spec: Spec, home: Path, tmp_path: Path
) -> Callable[[], tuple[list[TrialEpoch], list[Any]]]:
    """A trial whose model is measured at its end: its epochs, and the models that were."""

    def run() -> tuple[list[TrialEpoch], list[Any]]:
        found: list[Any] = []

        def at_end(trained: trial.Trained) -> dict[str, float]:
            state = trained.model.state_dict()
            found.append({name: tensor.clone() for name, tensor in state.items()})
            return {"test_sum": float(sum(tensor.double().sum() for tensor in state.values()))}

        objective = logit_mixoe(outlier_ratio=0.6)
        epochs = run_trial(
            spec, objective, {}, home=home, folder=tmp_path / "measured", at_end=at_end
        )
        return list(epochs), found

    return run


def test_what_is_measured_at_the_end_joins_the_last_epoch_and_is_measured_again_after_a_kill(
    measured,
) -> None:
    whole, models = measured()
    assert [("test_sum" in result.metrics) for result in whole] == [False, False, True]
    assert len(models) == 1
    again, models_again = measured()  # killed before its last epoch was recorded
    assert again == whole[-1:]
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models_again[0][name]), name


def test_the_images_may_come_from_elsewhere(
    spec: Spec, home: Path, tmp_path: Path, tiny_data: SearchData
) -> None:
    asked = []

    def load(data: Any, where: Path) -> SearchData:
        asked.append((data, where))
        return tiny_data

    one = spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": 1})})
    (result,) = run_trial(one, logit_mixoe(), {}, home=home, folder=tmp_path / "other", load=load)
    assert set(asked) == {(spec.data, home)}
    assert result.epoch == 1


def test_with_a_damaged_newest_checkpoint_it_goes_on_from_the_one_before(
    start, tmp_path: Path
) -> None:
    whole = list(start())
    newest = checkpoint.list_newest_first(tmp_path / "trial")[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    again = list(start())
    assert numbers(again) == numbers(whole[1:])


def test_two_trials_with_the_same_parameters_give_the_same_bits(start, tmp_path: Path) -> None:
    assert numbers(list(start("one"))) == numbers(list(start("two")))
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_a_checkpoint_is_enough_to_use_the_weights(
    make_spec: MakeSpec, home: Path, tmp_path: Path
) -> None:
    """On all the digits: with what the checkpoint says alone the recorded accuracy comes out again."""
    spec = make_spec("train.epochs=1", "model.baseline.epochs=1")
    (last,) = run_trial(spec, logit_mixoe(), {}, home=home, folder=tmp_path)
    state = checkpoint.load_newest(tmp_path)
    assert state is not None
    data = load_search_data(spec.data)
    about = ModelDescription.of_record(state["describes"], whose="it", fix="")
    assert about == describe_model(spec, data, ImageSource(data, torch.device("cpu")))
    assert about.classes == data.classes
    preprocessing = about.preprocessing
    model = about.build(state["model"])
    pixels = torch.from_numpy(data.val.pixels).float()
    assert pixels.shape[1:] == preprocessing.shape
    with torch.inference_mode():
        logits = model.eval()((pixels - preprocessing.mean[0]) / preprocessing.std[0])
    right = (logits.argmax(1).numpy() == data.val_labels).mean()
    assert right == pytest.approx(last.metrics["val_accuracy"], abs=1e-12)


def test_the_images_are_decoded_before_the_baseline_is_waited_for(
    start, tiny_images: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def decode(*_: object) -> ImageSource:
        order.append("decoded")
        return tiny_images

    def wait(*_: object) -> None:
        order.append("waits for the baseline")
        raise TrainingError("that is all")

    monkeypatch.setattr(trial, "_images_on", decode)
    monkeypatch.setattr(trial, "_baseline_of", wait)
    with pytest.raises(TrainingError, match="that is all"):
        next(start())
    assert order == ["decoded", "waits for the baseline"]


def test_a_trial_that_diverges_ends_in_a_training_error(start) -> None:
    with pytest.raises(TrainingError, match="epoch 1"):
        list(start(lr=1e30))


def test_without_a_gpu_a_trial_that_needs_one_says_so(
    start, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda = spec.model_copy(update={"train": spec.train.model_copy(update={"device": "cuda"})})
    with pytest.raises(UsageError, match="train.device is 'cuda', but this process sees no GPU"):
        next(start(spec=cuda))


def test_the_number_of_threads_is_that_of_the_spec(
    start, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(trial.torch, "set_num_threads", found.append)
    three = spec.model_copy(update={"train": spec.train.model_copy(update={"threads": 3})})
    next(start(spec=three))
    assert found == [3]
