"""Compares planned memory (`megatron.planning`) with what training takes, on one GPU: three steps of models of well-known sizes.

python tools/benchmark/memory.py                          # every case; writes tools/benchmark/results/memory_GPU.json
python tools/benchmark/memory.py --case "pythia 410M"     # one case
python tools/benchmark/memory.py --device cpu             # tiny models on the CPU: the same path without a GPU

Each case runs in a process of its own: what one engine leaves behind is not there for the next. Measured are bytes in tensors (on a GPU
`torch.cuda.max_memory_allocated`), which is what is planned; the context and gaps of the allocator come on top.
"""

from __future__ import annotations

import sys

# This directory goes to the end: tokenize.py in it would hide the module of that name.
sys.path.append(sys.path.pop(0))

import argparse
import contextlib
import gc
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from megatron.data.batch import Batch
from megatron.engine.build import build_engine
from megatron.initialize import World, join_world, shutdown
from megatron.model.gpt import build_layer_specs
from megatron.mpu.random_bits import sample_keys
from megatron.neox_arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import StageMemory, padded_rows, peak_memory
from megatron.training.objectives.next_token import NextTokenObjective
from tools.benchmark.peak import Peak

STEPS = 3
RESULTS = Path(__file__).resolve().parent / "results"

COMMON: dict[str, Any] = {
    "precision": "bfloat16",
    "seq_length": 2048,
    "max_position_embeddings": 2048,
    "zero_optimization": {"stage": 1},
    "train_iters": STEPS,
    "pos_emb": "rotary",
    "attention_config": [[["flash"], "all"]],
}
PYTHIA = {"rotary_pct": 0.25, "gpt_j_residual": True, "no_weight_tying": True, "vocab_size": 50254}
LLAMA = {
    "norm": "rmsnorm",
    "activation": "swiglu",
    "use_bias_in_attn_linear": False,
    "use_bias_in_mlp": False,
    "vocab_size": 128256,
}
RECOMPUTE = {"checkpoint_activations": True}


def sizes(layers: int, hidden: int, heads: int, micro_batch: int) -> dict[str, int]:
    """The keys of a model's size and of its micro-batch."""
    return {
        "num_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "train_micro_batch_size_per_gpu": micro_batch,
    }


LLAMA_1B = {**LLAMA, **sizes(16, 2048, 32, 2), "num_kv_heads": 8, "intermediate_size": 24576}
CASES: dict[str, dict[str, Any]] = {
    "pythia 160M": {**PYTHIA, **sizes(12, 768, 12, 16)},
    "pythia 160M, recomputing": {**PYTHIA, **sizes(12, 768, 12, 32), **RECOMPUTE},
    "pythia 160M, global attention": {**PYTHIA, **sizes(12, 768, 12, 4), "attention_config": [[["global"], "all"]]},
    "pythia 160M, fp16": {**PYTHIA, **sizes(12, 768, 12, 16), "precision": "fp16"},
    "pythia 160M, fp32": {**PYTHIA, **sizes(12, 768, 12, 4), "precision": "fp32"},
    "pythia 410M": {**PYTHIA, **sizes(24, 1024, 16, 8)},
    "pythia 410M, recomputing": {**PYTHIA, **sizes(24, 1024, 16, 16), **RECOMPUTE},
    "pythia 410M, accumulating": {**PYTHIA, **sizes(24, 1024, 16, 4), "gradient_accumulation_steps": 2},
    "pythia 410M, dropout": {**PYTHIA, **sizes(24, 1024, 16, 4), "hidden_dropout": 0.1, "attention_dropout": 0.1},
    "pythia 1.4B": {**PYTHIA, **sizes(24, 2048, 16, 4)},
    "pythia 1.4B, recomputing": {**PYTHIA, **sizes(24, 2048, 16, 8), **RECOMPUTE},
    "pythia 1.4B, zero 2": {**PYTHIA, **sizes(24, 2048, 16, 4), "zero_optimization": {"stage": 2}},
    "llama 1B": LLAMA_1B,
    "llama 1B, recomputing": {**LLAMA_1B, **sizes(16, 2048, 32, 4), **RECOMPUTE},
    "llama 1B, pipeline engine": {**LLAMA_1B, "pipe_parallel_size": 1, "gradient_accumulation_steps": 2},
}
TINY = {
    "hidden_size": 128,
    "num_layers": 3,
    "num_attention_heads": 4,
    "seq_length": 128,
    "max_position_embeddings": 128,
}
"""What a case becomes on the CPU, where only the path is tried."""


def main() -> None:
    """Run one case here, or every case in a process each."""
    options = parse_arguments()
    if options.case is not None and options.in_this_process:
        print(json.dumps(run_case(options.case, options.device)))
        return
    cases = [run_apart(name, options.device) for name in ([options.case] if options.case else CASES)]
    report = {"device": device_name(options.device), "torch": torch.__version__, "steps": STEPS, "cases": cases}
    output = options.output or RESULTS / f"memory_{re.sub(r'[^A-Za-z0-9]+', '_', report['device'])}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{output}: {len(cases)} cases")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare planned memory with that of real training steps.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tiny models (default: cuda)")
    parser.add_argument(
        "--case", choices=tuple(CASES), metavar="NAME", help=f"one case: {'; '.join(CASES)} (default: all)"
    )
    parser.add_argument("--output", type=Path, help="where to write (default: tools/benchmark/results/memory_GPU.json)")
    parser.add_argument(
        "--in-this-process", action="store_true", help="with --case: print the result and write nothing"
    )
    return parser.parse_args()


def run_apart(name: str, device: str) -> dict[str, Any]:
    """`run_case` in a new process; prints a line. Raises RuntimeError with what it wrote when it fails."""
    command = [sys.executable, __file__, "--case", name, "--device", device, "--in-this-process"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: planned {gib(result['planned'])}, measured {gib(result['measured'])}, {result['deviation']:+.1%}")
    return result


def run_case(name: str, device: str) -> dict[str, Any]:
    """Plan a case and measure it."""
    os.environ.setdefault("MASTER_PORT", "0")
    args, vocabulary = arguments(name, device)
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    planned = plan(args, vocabulary, device)
    measured = measure(args, vocabulary, join_world(args))
    shutdown()
    deviation = planned.total / measured - 1
    return {
        "name": name,
        "planned": planned.total,
        "measured": measured,
        "deviation": deviation,
        "parts": asdict(planned),
    }


def arguments(name: str, device: str) -> tuple[NeoXArgs, int]:
    """The configuration of a case and the entries of its vocabulary."""
    settings = {**COMMON, **CASES[name]}
    vocabulary = settings.pop("vocab_size")
    if device == "cpu":
        settings = {**settings, **TINY, "train_micro_batch_size_per_gpu": 2, "distributed_backend": "gloo"}
        if "num_kv_heads" in settings:
            settings |= {"num_kv_heads": 2, "intermediate_size": 768}
        vocabulary = 1000
    return NeoXArgs.from_dict(settings), vocabulary


def plan(args: NeoXArgs, vocabulary: int, device: str) -> StageMemory:
    """What is planned for one device."""
    return peak_memory(args, Layout.of(args), vocab_size=vocabulary, device="cpu" if device == "cpu" else "cuda")


def measure(args: NeoXArgs, vocabulary: int, world: World) -> int:
    """The most bytes in tensors while an engine is built and trains a few steps, beyond what there was before."""
    rows = padded_rows(args, Layout.of(args), vocabulary)
    with peak_on(world.device) as peak:
        engine = build_engine(
            args,
            specs=build_layer_specs(args, vocab_size=vocabulary, padded_vocab_size=rows),
            objective=NextTokenObjective(group=world.groups.tensor, vocab_size=vocabulary),
            groups=world.groups,
            device=world.device,
        )
        batches = [random_batch(args, vocabulary) for _ in range(args.gradient_accumulation_steps)]
        for _ in range(STEPS):
            engine.train_step(batches, lr=1e-5)
    return peak[0]


@contextlib.contextmanager
def peak_on(device: torch.device) -> Iterator[list[int]]:
    """A list that holds the peak once the block is done."""
    found: list[int] = []
    gc.collect()
    if device.type == "cpu":
        with Peak() as counter:
            yield found
        found.append(counter.bytes)
        return
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield found
    torch.cuda.synchronize(device)
    found.append(torch.cuda.max_memory_allocated(device) - before)


def random_batch(args: NeoXArgs, vocabulary: int) -> Batch:
    """A micro-batch of random tokens, on the CPU as a loader gives it."""
    shape = args.train_micro_batch_size_per_gpu, args.seq_length
    tokens = torch.randint(vocabulary, shape)
    positions = torch.arange(args.seq_length).expand(shape).contiguous()
    is_dropping = args.hidden_dropout or args.attention_dropout
    keys = sample_keys(range(shape[0]), seed=args.seed, step=0) if is_dropping else None
    return Batch(tokens, tokens.clone(), torch.ones(shape), positions, dropout_keys=keys)


def device_name(device: str) -> str:
    """The name of the GPU, or `cpu`."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def gib(size: int) -> str:
    """`1.25 GiB`"""
    return f"{size / 2**30:.2f} GiB"


if __name__ == "__main__":
    main()
