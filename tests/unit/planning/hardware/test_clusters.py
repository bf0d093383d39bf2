"""The cluster a config is planned for, and what the user is told about that choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron.errors import ConfigError, NeoXError
from megatron.neox_arguments.keys.runner import RunnerArgs
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.hardware import clusters
from megatron.planning.hardware.clusters import choose_cluster, find_cluster, product_names, without_world
from megatron.planning.hardware.devices import DEVICES, GENERIC, Cluster, parse_gpus

H100 = DEVICES["H100-SXM"]


def find(*, devices: int, names: tuple[str, ...] = (), variables: dict[str, str] | None = None, **keys: Any) -> Any:
    return find_cluster(
        RunnerArgs(**keys),
        unknown=GENERIC,
        environment=variables or {},
        devices=lambda: devices,
        names=lambda: names,
    )


def test_the_devices_of_this_machine_are_recognised() -> None:
    assert find(devices=4, names=("NVIDIA H100 80GB HBM3",) * 4) == (Cluster(1, 4, H100), True)
    assert find(devices=4, names=("NVIDIA H100 80GB HBM3",) * 4, num_gpus=2) == (Cluster(1, 2, H100), True)


def test_an_unknown_product_is_replaced_and_reported() -> None:
    assert find(devices=2, names=("NVIDIA Titan 9000",)) == (Cluster(1, 2, GENERIC), False)
    assert find(devices=2) == (Cluster(1, 2, GENERIC), False)


def test_without_devices_and_hostfile_there_is_no_cluster() -> None:
    assert find(devices=0) is None


def test_the_hostfile_counts(tmp_path: Path) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("a slots=8\nb slots=8\nc slots=4\n")
    cluster, is_known = find(devices=0, hostfile=str(hostfile))
    assert (cluster.nodes, cluster.devices_per_node, is_known) == (5, 4, False), (
        "20 devices, never more than 4 together"
    )
    assert find(devices=0, hostfile=str(hostfile), num_nodes=2)[0].world_size == 16
    assert find(devices=0, variables={"DLTS_HOSTFILE": str(hostfile)})[0].world_size == 20


def test_keys_that_name_what_does_not_exist_are_refused() -> None:
    with pytest.raises(NeoXError, match="num_gpus"):
        find(devices=2, num_gpus=4)


def test_the_number_of_processes_in_the_config_is_not_used_and_that_is_said() -> None:
    values = ConfigValues.from_dict({"global_num_gpus": 4, "norm": "rmsnorm"})
    cluster, notes = choose_cluster(values, parse_gpus("8xH100"))
    assert cluster == Cluster(1, 8, H100)
    (note,) = notes
    assert '"global_num_gpus" is 4' in note
    assert without_world(values).values == {"global_num_gpus": None, "norm": "rmsnorm"}
    assert choose_cluster(values, parse_gpus("4xH100"))[1] == []


@pytest.mark.parametrize(
    ("keys", "nodes", "per_node"),
    [
        ({}, 1, 1),
        ({"pipe_parallel_size": 4, "model_parallel_size": 2}, 1, 8),
        ({"pipe_parallel_size": 0, "model_parallel_size": 2}, 1, 2),
        ({"pipe_parallel_size": 6, "model_parallel_size": 2}, 2, 6),
        ({"context_parallel_size": 4, "model_parallel_size": 2}, 1, 8),
        ({"global_num_gpus": 96, "model_parallel_size": 2}, 12, 8),
    ],
)
def test_without_any_devices_one_copy_on_generic_ones_is_planned(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, int], nodes: int, per_node: int
) -> None:
    monkeypatch.setattr(clusters, "find_cluster", lambda *_, **__: None)
    cluster, notes = choose_cluster(ConfigValues.from_dict(keys), None)
    assert cluster == Cluster(nodes, per_node, GENERIC)
    assert "--gpus" in notes[0]


def test_the_driver_is_asked_for_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = "--query-gpu=name" ] && printf "NVIDIA H200\\nNVIDIA H200\\n"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert product_names() == ("NVIDIA H200", "NVIDIA H200")
    program.write_text("#!/bin/sh\necho no devices were found\nexit 6\n")
    assert product_names() == ()
    program.unlink()
    assert product_names() == ()


def test_launcher_keys_without_a_usable_value_ask_for_the_option() -> None:
    with pytest.raises(ConfigError, match=r'"num_gpus".*give --gpus'):
        choose_cluster(ConfigValues.from_dict({"num_gpus": "many"}), None)
