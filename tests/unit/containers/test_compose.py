"""The services of compose.yml build what the Dockerfile has, and their commands are ones that deepy.py takes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.unit.containers.conftest import Planner
from tests.unit.containers.recipes import DOCKERFILE, VARIANTS, instructions

COMPOSE = REPOSITORY / "containers" / "docker" / "compose.yml"
FILE = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_build_a_variant_of_the_dockerfile(name: str) -> None:
    build = SERVICES[name]["build"]
    context = (COMPOSE.parent / build["context"]).resolve()
    assert context == REPOSITORY
    assert context / build["dockerfile"] == DOCKERFILE
    assert build["args"]["VARIANT"] in VARIANTS
    assert SERVICES[name]["image"] == f"deepy-neox:{build['args']['VARIANT']}"


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_mounted_where_the_image_has_a_folder_of_its_user(name: str) -> None:
    """Else Docker makes it root's, who is not the user of the container."""
    made = next(entry.text for entry in instructions() if "install --directory --owner=neox" in entry.text)
    for volume in SERVICES[name]["volumes"]:
        source, _, target = volume.partition(":")
        assert source in FILE["volumes"]
        assert target in made.split()


def test_two_containers_are_the_nodes_of_one_run(planner: Planner) -> None:
    nodes = [SERVICES[name] for name in ("node0", "node1")]
    assert [node["environment"]["NODE_RANK"] for node in nodes] == ["0", "1"]
    plans = [planner(node["command"], node["environment"]) for node in nodes]
    assert [plan.args.global_num_gpus for plan in plans] == [2, 2]
    assert {plan.args.launcher for plan in plans} == {"torchrun"}
    assert {node["environment"]["MASTER_ADDR"] for node in nodes} == {"node0"}


def test_the_service_with_a_gpu_is_a_run(planner: Planner) -> None:
    gpu = SERVICES["gpu"]
    assert planner(gpu["command"], {}).args.global_num_gpus == 1
    assert gpu["profiles"] == ["gpu"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"


def test_data_is_prepared_first() -> None:
    assert SERVICES["prepare"]["command"][:3] == ["python", "prepare_data.py", "python_stdlib"]
    for name in ("node0", "node1", "gpu"):
        assert SERVICES[name]["depends_on"]["prepare"]["condition"] == "service_completed_successfully"
