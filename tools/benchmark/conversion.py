"""Measures what converting a model takes of memory and time: an export, an export with its proof, the way back, and `load: hf:`.

python tools/benchmark/conversion.py                      # a model of Pythia 1B's sizes; writes results/conversion_CPU.json
python tools/benchmark/conversion.py --model "pythia 160M" --directory DIR --check    # status 1 when the target is missed

Weights are random. Each case runs in a process of its own; measured is what it holds beyond what it held after its imports (and, where a
model is loaded, beyond that model): `resident` as the operating system counts it, with pages of mapped files, which it drops when it needs
room, and `anonymous` without them. The target is that of the export: no more than the largest layer, a saved chunk and a little more.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# In place of this script's directory, in which tokenize.py would hide the module of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import math
import multiprocessing
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch

from megatron.checkpointing.planners import CHUNK_BYTES
from megatron.checkpointing.settings import settings_yaml
from megatron.conversion.converting.to_checkpoint import to_checkpoint
from megatron.conversion.converting.to_hugging_face import to_hugging_face
from megatron.conversion.converting.write import write_checkpoint
from megatron.conversion.export.weights import export_weights
from megatron.conversion.loading import load_into_module
from megatron.conversion.mapping.architecture import config_keys
from megatron.conversion.mapping.choose import family_for
from megatron.conversion.mapping.shapes import model_args, model_specs
from megatron.conversion.opening import open_model
from megatron.conversion.proving.theirs import import_transformers
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from tools.benchmark.processor import file_name, processor
from tools.benchmark.random_model import MODELS, RandomSource
from tools.benchmark.resident import anonymous_peak, resident_peak

RESULTS = Path(__file__).resolve().parent / "results"
A_LITTLE = 1 << 26  # bytes that an export may take for itself
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def prepare(name: str, place: Path) -> dict[str, int]:
    """Write the checkpoint and its export, which the cases begin from; bytes of the model, its largest layer and tensor, in fp32."""
    architecture = MODELS[name]
    source = RandomSource(architecture)
    (place / "checkpoint").mkdir()
    write_checkpoint(source, place / "checkpoint", config_yaml=settings_yaml(model_args(architecture)))
    sizes = {name: 4 * math.prod(shape) for name, shape in source.shapes.items()}
    layers: Counter[str] = Counter()
    for tensor, size in sizes.items():
        layers[tensor.partition(".")[0]] += size
    return {
        "model_bytes": sum(sizes.values()),
        "largest_layer_bytes": max(layers.values()),
        "block_bytes": layers["2"],
        "largest_tensor_bytes": max(sizes.values()),
    }


@contextmanager
def measured(found: dict[str, Any]) -> Iterator[None]:
    """Seconds and memory of the block."""
    with resident_peak() as resident, anonymous_peak() as anonymous:
        began = time.perf_counter()
        yield
        found["seconds"] = round(time.perf_counter() - began, 2)
    found["resident_bytes"], found["anonymous_bytes"] = resident.bytes, anonymous.bytes


def export(place: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Our checkpoint as files of transformers, read back, without a proof."""
    found: dict[str, Any] = {}
    target = place / "weights alone"
    target.mkdir()
    with measured(found):
        opened = open_model(place / "checkpoint")
        family = family_for(opened.architecture)
        export_weights(opened.source, opened.architecture, family, target, dtype=dtype)
    return found


def export_and_prove(place: Path, dtype: torch.dtype) -> dict[str, Any]:
    """convert_neox_to_hf.py: the export and its proof, for which transformers has the model in fp32."""
    found: dict[str, Any] = {}
    import_transformers()
    precision = next(name for name, each in DTYPES.items() if each == dtype)
    with measured(found):
        conversion = to_hugging_face(open_model(place / "checkpoint"), place / "export", precision=precision)
    return {
        **found,
        "seconds_of_writing_and_proof": [round(seconds, 2) for seconds in conversion.seconds],
        "equal": conversion.equal,
    }


def convert_back(place: Path, dtype: torch.dtype) -> dict[str, Any]:
    """convert_hf_to_neox.py: a checkpoint of the export, and its proof."""
    found: dict[str, Any] = {}
    import_transformers()
    with measured(found):
        conversion = to_checkpoint(open_model(place / "export"), place / "converted")
    return {
        **found,
        "seconds_of_writing_and_proof": [round(seconds, 2) for seconds in conversion.seconds],
        "equal": conversion.equal,
    }


def load(place: Path, dtype: torch.dtype) -> dict[str, Any]:
    """`load: hf:` into a module in fp32, beyond which memory is counted."""
    found: dict[str, Any] = {}
    architecture = open_model(place / "export").architecture
    keys = {"seq_length": 128, "train_iters": 1, "train_micro_batch_size_per_gpu": 1, "precision": "fp32"}
    args = NeoXArgs.from_dict({**keys, **config_keys(architecture), "load": f"hf:{place / 'export'}"})
    model = SequentialModel(model_specs(architecture), BuildContext(), seed=None)
    for parameter in model.parameters():
        parameter.data.zero_()  # its pages are there from now on
    with measured(found):
        load_into_module(args, model, vocab_size=architecture.vocab_size, group=SINGLE)
    return found


CASES: dict[str, Callable[[Path, torch.dtype], dict[str, Any]]] = {
    "export": export,
    "export and proof": export_and_prove,
    "convert_hf_to_neox": convert_back,
    "load: hf:": load,
}
"""In this order: each of the last two needs what the second one wrote."""


def apart(action: Callable[..., dict[str, Any]], *values: Any) -> dict[str, Any]:
    """What a function gives in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(action, *values).result()


def print_report(report: dict[str, Any]) -> None:
    """A table of seconds and memory."""
    sizes = report["sizes"]
    print(f"{report['model']}, files in {report['dtype']}; in fp32 {megabytes(sizes['model_bytes'])}, of which the largest layer {megabytes(sizes['largest_layer_bytes'])}")  # fmt: skip
    print(f"{'':22}{'seconds':>10}{'anonymous':>14}{'resident':>14}{'of the model':>14}")
    for name, case in report["cases"].items():
        part = case["anonymous_bytes"] / sizes["model_bytes"]
        print(
            f"{name:22}{case['seconds']:10.1f}{megabytes(case['anonymous_bytes']):>14}{megabytes(case['resident_bytes']):>14}{part:14.2f}"
        )
    target = report["target"]
    verdict = "PASS" if target["anonymous_bytes"] <= target["allowed_bytes"] else "FAIL"
    print(f"{verdict}  export: {megabytes(target['anonymous_bytes'])} of {megabytes(target['allowed_bytes'])} allowed")


def megabytes(size: int) -> str:
    """`1,234 MB`"""
    return f"{size / 1e6:,.0f} MB"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure what converting a model takes of memory and time.")
    parser.add_argument("--model", choices=tuple(MODELS), default="pythia 1B")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bf16", help="of the exported files")
    parser.add_argument("--directory", type=Path, help="where files may lie for a while (default: the temporary one)")
    parser.add_argument("--output", type=Path, help="default: tools/benchmark/results/conversion_CPU.json")
    parser.add_argument("--check", action="store_true", help="end with status 1 when the target is missed")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write the report, and judge."""
    options = parse_arguments()
    report: dict[str, Any] = {
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "threads": torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "transformers", "safetensors")},
        },
        "model": options.model,
        "dtype": options.dtype,
    }
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        place = Path(directory)
        report["sizes"] = apart(prepare, options.model, place)
        report["cases"] = {name: apart(case, place, DTYPES[options.dtype]) for name, case in CASES.items()}
    sizes = report["sizes"]
    chunk = min(CHUNK_BYTES, sizes["largest_tensor_bytes"])
    report["target"] = {
        "what": "anonymous memory of the export",
        "anonymous_bytes": report["cases"]["export"]["anonymous_bytes"],
        "allowed_bytes": sizes["largest_layer_bytes"] + chunk + A_LITTLE,
    }
    print_report(report)
    output = options.output or RESULTS / file_name("conversion")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {output.name}")
    if options.check and report["target"]["anonymous_bytes"] > report["target"]["allowed_bytes"]:
        sys.exit("the target is missed")


if __name__ == "__main__":
    main()
