"""The Kubernetes files use settings that KubeRay has, with values of their types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
TYPES = {"string": str, "integer": int, "boolean": bool, "number": (int, float)}


def problems(value: Any, known: dict[str, Any], where: str) -> list[str]:
    """What of `value` the settings in `known` do not allow."""
    if "allowed" in known:
        found = [f"{where}: no setting '{key}'" for key in value if key not in known["allowed"]]
        found += [f"{where}: '{key}' is missing" for key in known["required"] if key not in value]
        for key, part in known["properties"].items():
            if key in value:
                found += problems(value[key], part, f"{where}.{key}")
        return found
    if "items" in known:
        found = []
        for place, item in enumerate(value):
            found += problems(item, known["items"], f"{where}[{place}]")
        return found
    if "map" in known:
        wrong = known["map"] == "string" and not all(
            isinstance(item, str) for item in value.values()
        )
        return [f"{where}: every value must be text"] if wrong else []
    if known.get("int-or-string"):
        return [] if isinstance(value, int | str) else [f"{where}: must be a number or text"]
    if "enum" in known and value not in known["enum"]:
        return [f"{where}: must be one of {known['enum']}"]
    kind = TYPES[known["type"]]
    return [] if isinstance(value, kind) else [f"{where}: must be {known['type']}"]


def manifests() -> list[dict[str, Any]]:
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        found += list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("kind", ["RayJob", "RayCluster"])
def test_every_setting_is_one_that_kuberay_has(kind: str) -> None:
    known = json.loads(
        (Path(__file__).parent / "kuberay_settings.json").read_text(encoding="utf-8")
    )
    (manifest,) = [found for found in manifests() if found["kind"] == kind]
    assert manifest["apiVersion"] == "ray.io/v1"
    assert problems(manifest["spec"], known[kind], "spec") == []
    manifest["spec"]["entrypont"] = "x"
    assert problems(manifest["spec"], known[kind], "spec") == ["spec: no setting 'entrypont'"]


def test_every_claim_that_a_pod_mounts_is_there_and_every_pod_sees_the_same_paths() -> None:
    found = manifests()
    claims = {one["metadata"]["name"] for one in found if one["kind"] == "PersistentVolumeClaim"}
    for manifest in found:
        if not manifest["kind"].startswith("Ray"):
            continue
        cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        pods = [group["template"]["spec"] for group in groups]
        mounts = [pod["containers"][0]["volumeMounts"] for pod in pods]
        assert all(mount == mounts[0] for mount in mounts)
        for pod in pods:
            used = {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
            assert used <= claims
            assert pod["containers"][0]["env"][0] == {"name": "LMOE_TUNE_HOME", "value": "/runs"}


def test_a_retry_of_the_job_waits_for_the_attempt_before_it() -> None:
    (job,) = [found for found in manifests() if found["kind"] == "RayJob"]
    assert "--wait-for-lock" in job["spec"]["entrypoint"]
    assert "--address auto" in job["spec"]["entrypoint"]
    assert job["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"


def test_the_version_of_ray_is_the_pinned_one() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for manifest in manifests():
        if manifest["kind"].startswith("Ray"):
            cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
            assert f"\nray=={cluster['rayVersion']}\n" in pinned
