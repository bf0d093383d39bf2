"""Accelerators: memory, peak speed and links by product, and clusters of them as they are written on a command line.

Peaks are dense half-precision matrix rates with fp32 accumulation (without sparsity), from the vendors' data sheets. Memory is the
total that nvidia-smi and rocm-smi list, in MiB, which is a little less than the data sheet says where error correction takes a share.
Links are bytes a second that one device sends: NVLink or Infinity Fabric inside a node (half of the data sheet's figure, which adds
both directions), PCIe where there is none; the network of a node as the vendors' reference machines have it (DGX-2, DGX A100, DGX H100,
DGX B200, Frontier's nodes, MI300X platforms: one adapter a device or two), shared out over its devices, and one adapter of 100 Gbit/s a
node for PCIe cards. NVLink bridges between pairs of PCIe cards are not assumed.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from megatron.errors import ConfigError

DEVICES_PER_NODE = 8
MIB = 2**20


@dataclass(frozen=True)
class Device:
    """One accelerator as software sees it. memory_bytes: all of it; peak_flops: FLOP/s in half precision.

    link_bytes_per_second: to the other devices of its node; network_bytes_per_second: its share of the node's network; product: pattern
    of the names that drivers give it; has_bfloat16: whether its matrix units know bfloat16.
    """

    name: str
    memory_bytes: int
    peak_flops: float
    link_bytes_per_second: float
    network_bytes_per_second: float
    product: str
    has_bfloat16: bool = True


@dataclass(frozen=True)
class Cluster:
    """Equal nodes of equal devices."""

    nodes: int
    devices_per_node: int
    device: Device

    @property
    def world_size(self) -> int:
        """Devices of all nodes."""
        return self.nodes * self.devices_per_node

    def __str__(self) -> str:
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"{self.world_size} x {self.device.name} ({nodes} of {self.devices_per_node})"


def _device(
    name: str, *, mib: int, tflops: float, link: float, network: float, product: str, bfloat16: bool = True
) -> Device:
    """mib: MiB of memory; link and network: GB/s."""
    return Device(name, mib * MIB, tflops * 1e12, link * 1e9, network * 1e9, product, bfloat16)


_PCIE_3, _PCIE_4, _PCIE_5 = 15.75, 31.5, 63.0
_ONE_ADAPTER = 12.5 / DEVICES_PER_NODE

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        _device("A100-80GB", mib=81920, tflops=312, link=300, network=25, product=r"\bA100\b.*\b80GB\b"),
        _device("A100-40GB", mib=40960, tflops=312, link=300, network=25, product=r"\bA100\b"),
        _device("H100-NVL", mib=95830, tflops=835, link=_PCIE_5, network=_ONE_ADAPTER, product=r"\bH100 NVL\b"),
        _device("H100-PCIe", mib=81559, tflops=756, link=_PCIE_5, network=_ONE_ADAPTER, product=r"\bH100 PCIe\b"),
        _device("H100-SXM", mib=81559, tflops=989, link=450, network=50, product=r"\bH100\b"),
        _device("H200-NVL", mib=143771, tflops=835, link=_PCIE_5, network=_ONE_ADAPTER, product=r"\bH200 NVL\b"),
        _device("H200", mib=143771, tflops=989, link=450, network=50, product=r"\bH200\b"),
        _device("GH200", mib=97871, tflops=989, link=450, network=50, product=r"\bGH200\b"),
        _device("B200", mib=183359, tflops=2250, link=900, network=50, product=r"\bB200\b"),
        _device(
            "V100-32GB", mib=32510, tflops=125, link=150, network=6.25, product=r"\bV100\b.*\b32GB\b", bfloat16=False
        ),
        _device("V100-16GB", mib=16160, tflops=125, link=150, network=6.25, product=r"\bV100\b", bfloat16=False),
        _device("A40", mib=46068, tflops=149.7, link=_PCIE_4, network=_ONE_ADAPTER, product=r"\bA40\b"),
        _device("A6000", mib=49140, tflops=154.8, link=_PCIE_4, network=_ONE_ADAPTER, product=r"\bRTX A6000\b"),
        _device("L40S", mib=46068, tflops=362, link=_PCIE_4, network=_ONE_ADAPTER, product=r"\bL40S\b"),
        _device("RTX-3090", mib=24576, tflops=71, link=_PCIE_4, network=_ONE_ADAPTER, product=r"\bRTX 3090$"),
        _device("RTX-4090", mib=24564, tflops=165.2, link=_PCIE_4, network=_ONE_ADAPTER, product=r"\bRTX 4090$"),
        _device("T4", mib=15360, tflops=65, link=_PCIE_3, network=_ONE_ADAPTER, product=r"\bT4\b", bfloat16=False),
        _device(
            "MI250X", mib=65520, tflops=191.5, link=200, network=12.5, product=r"\bMI250X\b"
        ),  # one of its two dies
        _device("MI300X", mib=196592, tflops=1307, link=448, network=50, product=r"\bMI300X\b"),
    )
}
"""By name; of several whose `product` matches, the first counts."""

_ALIASES = {
    "h100": "H100-SXM",
    "h100-80gb": "H100-SXM",
    "3090": "RTX-3090",
    "4090": "RTX-4090",
    "rtx-a6000": "A6000",
    "mi250x-gcd": "MI250X",
}

GENERIC = DEVICES["A100-80GB"]
"""Stands for a device that is not known."""


def parse_gpus(text: str) -> Cluster:
    """`12x8xA100-40GB` (nodes x devices x product), `96xA100-40GB` (nodes of 8) or `H200` (one) -> the cluster.

    Raises ConfigError, naming the known products, for anything else.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(?:(\d+)x)?([a-z].*|[34]090)", text.strip(), re.IGNORECASE)
    if match is None or 0 in (int(count) for count in match.groups()[:2] if count):
        raise ConfigError(
            [
                f'"{text}" does not describe devices: write COUNTxPRODUCT or NODESxCOUNTxPRODUCT, e.g. 8xA100-80GB or '
                f"12x8xA100-40GB; known products are {', '.join(DEVICES)}"
            ]
        )
    device = find_device(match[3])
    if match[2] is not None:
        return Cluster(int(match[1]), int(match[2]), device)
    count = int(match[1] or 1)
    if count > DEVICES_PER_NODE and count % DEVICES_PER_NODE:
        raise ConfigError(
            [f'"{text}": {count} devices do not divide into nodes of {DEVICES_PER_NODE}; {_other_nodes(count, device)}']
        )
    per_node = min(count, DEVICES_PER_NODE)
    return Cluster(count // per_node, per_node, device)


def _other_nodes(count: int, device: Device) -> str:
    """How to write this many devices in nodes of another size, or the nearest numbers that divide."""
    size = next((size for size in (4, 6, 2, 7, 5, 3) if count % size == 0), None)
    if size is not None:
        return f"write the nodes, e.g. {count // size}x{size}x{device.name} for nodes of {size}"
    low = count // DEVICES_PER_NODE * DEVICES_PER_NODE
    return f"write {low}x{device.name} or {low + DEVICES_PER_NODE}x{device.name}"


def find_device(name: str) -> Device:
    """The device written as `name`, in any case. Raises ConfigError with the known names, and the nearest one."""
    written = name.strip().lower().replace(" ", "-").replace("_", "-")
    spellings = {**{known.lower(): known for known in DEVICES}, **_ALIASES}
    if written in spellings:
        return DEVICES[spellings[written]]
    close = difflib.get_close_matches(written, list(spellings), n=1, cutoff=0.7)
    variants = [known for known in DEVICES if known.lower().startswith(f"{written}-")]
    likely = " or ".join(variants or [spellings[spelling] for spelling in close])
    hint = f" (did you mean {likely}?)" if likely else ""
    raise ConfigError([f'"{name}" is not a known device{hint}: choose one of {", ".join(DEVICES)}'])


def recognise(product: str) -> Device | None:
    """The device that drivers call `product` ("NVIDIA A100-SXM4-80GB"); None when it is not in the table, or only a part of one (MIG)."""
    if re.search(r"\bMIG\b", product):
        return None
    return next((device for device in DEVICES.values() if re.search(device.product, product)), None)
