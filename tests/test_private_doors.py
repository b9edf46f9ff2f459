"""What is private or undocumented and used all the same is there; decision 0021 says why it is needed."""

from __future__ import annotations

import inspect
import io
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "decisions" / "0021-private-doors.md"


def found(path: str) -> Any:
    """What `module:a.b` names; None where an upgrade has taken it away."""
    module, _, names = path.partition(":")
    try:
        value = import_module(module)
        for name in filter(None, names.split(".")):
            value = getattr(value, name)
    except (ImportError, AttributeError):
        return None
    return value


def reads_a_member_more() -> bool:
    import torch

    content = io.BytesIO()
    torch.save({"epoch": 1}, content)
    with zipfile.ZipFile(content, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/result.json", "{}")
    content.seek(0)
    loaded: dict[str, int] = torch.load(content, weights_only=True)
    return loaded == {"epoch": 1}


def source(path: str) -> str:
    value = found(path)
    return inspect.getsource(value) if value is not None else ""


def parameters(path: str) -> set[str]:
    value = found(path)
    return set(inspect.signature(value).parameters) if value is not None else set()


def journal_codes() -> dict[str, int]:
    operations = found("optuna.storages.journal._storage:JournalOperation") or ()
    return {operation.name: int(operation.value) for operation in operations}


DOORS: dict[str, Callable[[], bool]] = {
    "Ray starts its side processes by Node.start_monitor, start_log_monitor and start_api_server": (
        lambda: all(
            found(f"ray._private.node:Node.{name}")
            for name in ("start_monitor", "start_log_monitor", "start_api_server")
        )
    ),
    "Ray chooses where it listens by ray_constants.ENABLE_RAY_CLUSTER": (
        lambda: (
            found("ray._private.ray_constants:ENABLE_RAY_CLUSTER") is True
            and "ENABLE_RAY_CLUSTER" in source("ray._private.services")
        )
    ),
    "Ray takes SIGTERM by ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER": (
        lambda: found("ray._private.ray_constants:RAY_DISABLE_FAILURE_SIGNAL_HANDLER") is False
    ),
    "Ray's children call utils.set_kill_on_parent_death_linux as they start": (
        lambda: (
            "ray._private.utils.set_kill_on_parent_death_linux()"
            in source("ray._private.services:start_ray_process")
        )
    ),
    "Ray prints a cluster's errors by worker.listen_error_messages": (
        lambda: callable(found("ray._private.worker:listen_error_messages"))
    ),
    "Ray asks JobConfig._runtime_env_has_working_dir before it adds the working directory": (
        lambda: (
            "_runtime_env_has_working_dir" in source("ray._private.worker:connect")
            and callable(found("ray.job_config:JobConfig._runtime_env_has_working_dir"))
        )
    ),
    "ray.init takes a _temp_dir": lambda: '"_temp_dir"' in source("ray._private.worker:init"),
    "a worker knows its node's raylet_socket_name": (
        lambda: found("ray._private.node:Node.raylet_socket_name") is not None
    ),
    "placement groups take a bundle_label_selector": (
        lambda: "bundle_label_selector" in parameters("ray.util.placement_group:placement_group")
    ),
    "a label selector may say !in(a,b)": (
        lambda: (
            found("ray._private.label_utils:validate_label_selector")(
                {"ray.io/node-id": "!in(a,b)"}
            )
            is None
        )
    ),
    "Tune copies the variables of class_cache into actors' environments": (
        lambda: (
            isinstance(found("ray.tune.execution.class_cache:DEFAULT_ENV_VARS"), dict | set | list)
            and hasattr(found("ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE"), "clear")
        )
    ),
    "Tune asks a stopper in every turn of its loop, and lets what it raises out": (
        lambda: "stop_all" in source("ray.tune.execution.tune_controller:TuneController")
    ),
    "Tune reads how many trials may wait from TUNE_MAX_PENDING_TRIALS_PG": (
        lambda: "TUNE_MAX_PENDING_TRIALS_PG" in source("ray.tune.execution.tune_controller")
    ),
    "a trial of Tune's has update_resources, error_file and get_pickled_error": (
        lambda: all(
            hasattr(found("ray.tune.experiment:Trial"), name)
            for name in ("update_resources", "error_file", "get_pickled_error")
        )
    ),
    "Ray says 'its node has died' where a node took a process with it": (
        lambda: "node" in source("ray.exceptions:ActorDiedError")
    ),
    "Optuna's journal has the operations that a rebuild and an audit read": (
        lambda: (
            [journal_codes().get(name) for name in ("CREATE_TRIAL", "SET_TRIAL_STATE_VALUES")]
            == [4, 6]
        )
    ),
    "an Optuna study has _storage and _study_id": (
        lambda: (
            "self._storage" in source("optuna.study:Study.__init__")
            and "self._study_id" in source("optuna.study:Study.__init__")
        )
    ),
    "Optuna keeps the parameters of an enqueued trial as fixed_params": (
        lambda: "fixed_params" in source("optuna.study:Study.enqueue_trial")
    ),
    "MLflow loads a model from code by pyfunc.loaders.code_model": (
        lambda: callable(found("mlflow.pyfunc.loaders.code_model:_load_pyfunc"))
    ),
    "the frames in which MLflow raises an error of a server's hold its answer as response": (
        lambda: {"response"} <= parameters("mlflow.utils.rest_utils:verify_rest_response")
    ),
    "set_tracking_uri(None) makes MLflow track where it did by itself": (
        lambda: (
            "MLFLOW_TRACKING_URI.unset()"
            in source("mlflow.tracking._tracking_service.utils:set_tracking_uri")
        )
    ),
    "MLflow's server can be told to run no jobs": (
        lambda: found("mlflow.environment_variables:MLFLOW_SERVER_ENABLE_JOB_EXECUTION") is not None
    ),
    "every BatchNorm of torch's is a _BatchNorm": (
        lambda: issubclass(
            found("torch.nn:BatchNorm2d"), found("torch.nn.modules.batchnorm:_BatchNorm")
        )
    ),
    "torch reads an archive that has one member more than it wrote": reads_a_member_more,
    "torch counts what a step needs in a FakeTensorMode": (
        lambda: found("torch._subclasses.fake_tensor:FakeTensorMode") is not None
    ),
}


@pytest.mark.parametrize("sentence", DOORS)
def test_a_private_door_is_still_open(sentence: str) -> None:
    try:
        is_open = DOORS[sentence]()
    except (TypeError, AttributeError):
        is_open = False
    assert is_open, f"no longer true of the installed packages: {sentence}; see {PAGE.name}"


def test_the_page_names_where_each_is_used() -> None:
    package = PAGE.parents[2] / "lmoe_tune"
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for row in rows[1:]:
        where = row.split(" | ")[2]
        for word in where.split("`")[1::2]:
            if word.endswith(".py"):
                assert (package / word).is_file(), f"{word} is not there: {row}"
