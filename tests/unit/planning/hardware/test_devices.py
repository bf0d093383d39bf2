"""Devices are those of their data sheets, or unknown; never those with a similar name. Clusters are what was written, or a sentence."""

from __future__ import annotations

import re

import pytest

from megatron.errors import ConfigError
from megatron.planning.hardware.devices import DEVICES, Cluster, find_device, parse_gpus, recognise

GIB = 2**30


@pytest.mark.parametrize(
    ("product", "name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-SXM", 989),
        ("NVIDIA H100 PCIe", "H100-PCIe", 756),
        ("NVIDIA H100 NVL", "H100-NVL", 835),
        ("NVIDIA H200", "H200", 989),
        ("NVIDIA H200 NVL", "H200-NVL", 835),
        ("NVIDIA GH200 480GB", "GH200", 989),
        ("NVIDIA B200", "B200", 2250),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB", 312),
        ("NVIDIA A100 80GB PCIe", "A100-80GB", 312),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB", 312),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB", 312),
        ("Tesla V100-SXM2-32GB", "V100-32GB", 125),
        ("Tesla V100-SXM2-16GB", "V100-16GB", 125),
        ("Tesla T4", "T4", 65),
        ("NVIDIA A40", "A40", 149.7),
        ("NVIDIA RTX A6000", "A6000", 154.8),
        ("NVIDIA L40S", "L40S", 362),
        ("NVIDIA GeForce RTX 3090", "RTX-3090", 71),
        ("NVIDIA GeForce RTX 4090", "RTX-4090", 165.2),
        ("AMD Instinct MI250X", "MI250X", 191.5),
        ("AMD Instinct MI300X", "MI300X", 1307),
    ],
)
def test_products_are_recognised(product: str, name: str, tflops: float) -> None:
    device = recognise(product)
    assert device is not None
    assert device.name == name
    assert device.peak_flops == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    "product",
    [
        *(
            "NVIDIA RTX A1000",
            "NVIDIA RTX A4000",
            "NVIDIA GB200",
            "CPU",
            "NVIDIA T400",
            "NVIDIA RTX 6000 Ada Generation",
        ),
        *("NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU"),
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    ],
)
def test_products_of_similar_names_and_parts_of_devices_are_not_recognised(product: str) -> None:
    assert recognise(product) is None


@pytest.mark.parametrize("name", DEVICES)
def test_memory_is_close_to_what_the_name_says(name: str) -> None:
    written = re.search(r"(\d+)GB$", name)
    if written:
        assert DEVICES[name].memory_bytes / GIB == pytest.approx(int(written[1]), rel=0.03)
    assert DEVICES[name].network_bytes_per_second <= DEVICES[name].link_bytes_per_second


@pytest.mark.parametrize(
    ("written", "nodes", "per_node", "name"),
    [
        ("96xA100-40GB", 12, 8, "A100-40GB"),
        ("12x8xA100-40GB", 12, 8, "A100-40GB"),
        ("12x4xa100-40gb", 12, 4, "A100-40GB"),
        ("8xH100", 1, 8, "H100-SXM"),
        ("3xH200", 1, 3, "H200"),
        ("H200", 1, 1, "H200"),
        ("2xRTX 3090", 1, 2, "RTX-3090"),
        ("2x4090", 1, 2, "RTX-4090"),
    ],
)
def test_clusters_are_read(written: str, nodes: int, per_node: int, name: str) -> None:
    assert parse_gpus(written) == Cluster(nodes, per_node, DEVICES[name])


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_can_be_written(name: str) -> None:
    assert parse_gpus(f"8x{name}").device is DEVICES[name]


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("8xA100", "did you mean A100-80GB or A100-40GB?"),
        ("8xv100", "did you mean V100-32GB or V100-16GB?"),
        ("8xH10", "did you mean H100-SXM?"),
        ("8xMI300", "did you mean MI300X?"),
        ("8xTPU", "choose one of A100-80GB"),
    ],
)
def test_unknown_devices_are_refused_with_the_known_ones(written: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gpus(written)
    (problem,) = caught.value.problems
    assert hint in problem
    assert "MI300X" in problem, "the known names are listed"


@pytest.mark.parametrize("written", ["", "8", "0xH100", "8x0xH100", "-1xH100", "8 H100s"])
def test_text_of_another_form_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(ConfigError, match=r"8xA100-80GB|choose one of"):
        parse_gpus(written)


def test_devices_that_do_not_divide_into_nodes_need_the_nodes_written() -> None:
    with pytest.raises(ConfigError, match=r"12 devices do not divide into nodes of 8; write the nodes, e.g. 3x4xT4"):
        parse_gpus("12xT4")


@pytest.mark.parametrize(
    ("written", "fixes"),
    [
        ("13xT4", ["8xT4", "16xT4"]),
        ("12xT4", ["3x4xT4"]),
        ("18xT4", ["3x6xT4"]),
        ("99xT4", ["33x3xT4"]),
        ("49xT4", ["7x7xT4"]),
    ],
)
def test_what_is_proposed_instead_is_accepted_and_nearly_as_many(written: str, fixes: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gpus(written)
    wanted = int(written.partition("x")[0])
    for fix in fixes:
        assert fix in caught.value.problems[0]
        assert abs(parse_gpus(fix).world_size - wanted) < (1 if len(fixes) == 1 else 8)


def test_names_are_found_in_any_case_and_with_blanks() -> None:
    assert find_device("rtx a6000") is find_device("A6000")
