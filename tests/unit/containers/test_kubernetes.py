"""tools/kubernetes/train.yml: pods that find each other, with an image that is built here and a command that deepy.py takes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from megatron.launcher.base import DEFAULT_GRACE_SECONDS
from megatron.stopping import STOPPED
from tests.conftest import REPOSITORY
from tests.unit.containers.conftest import Planner
from tests.unit.containers.recipes import VARIANTS

SERVICE, JOB = yaml.safe_load_all((REPOSITORY / "tools" / "kubernetes" / "train.yml").read_text())
POD: dict[str, Any] = JOB["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
VARIABLES = {entry["name"]: entry for entry in CONTAINER["env"]}


def test_pods_find_the_first_one_by_name() -> None:
    name = JOB["metadata"]["name"]
    assert JOB["spec"]["completionMode"] == "Indexed"
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["selector"] == {"job-name": name}
    assert POD["subdomain"] == SERVICE["metadata"]["name"]
    assert VARIABLES["MASTER_ADDR"]["value"] == f"{name}-0.{POD['subdomain']}"


def test_the_numbers_agree() -> None:
    assert JOB["spec"]["completions"] == JOB["spec"]["parallelism"] == int(VARIABLES["NNODES"]["value"])
    assert f"num_gpus={CONTAINER['resources']['limits']['nvidia.com/gpu']}" in CONTAINER["command"]


def test_the_image_is_a_variant_of_the_dockerfile() -> None:
    assert CONTAINER["image"] in {f"deepy-neox:{variant}" for variant in VARIANTS}


def test_runs_have_time_to_save_and_go_on_afterwards() -> None:
    assert POD["terminationGracePeriodSeconds"] > DEFAULT_GRACE_SECONDS
    ignored = [rule for rule in JOB["spec"]["podFailurePolicy"]["rules"] if rule["action"] == "Ignore"]
    assert {"operator": "In", "values": [STOPPED]} in [rule.get("onExitCodes") for rule in ignored]
    assert POD["restartPolicy"] == "Never", "Kubernetes takes rules for failed pods with no other"


@pytest.mark.parametrize("number", ["0", "1"])
def test_the_command_is_a_run_on_all_pods(planner: Planner, number: str) -> None:
    variables = {name: entry["value"] for name, entry in VARIABLES.items() if "value" in entry}
    words = [*CONTAINER["command"], "vocab_file=data/python_stdlib/tokenizer.json"]  # that of the volume is not here
    plan = planner(words, {**variables, "NODE_RANK": number, "NEOX_JOB_TOKEN": "word"})
    assert plan.args.global_num_gpus == 16
    assert plan.args.launcher == "torchrun"


def test_every_volume_is_mounted_and_there() -> None:
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
