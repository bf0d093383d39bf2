"""What a config asks for against what is here: devices, packages, files, space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from megatron import text
from megatron.doctor.facts.checkpoints import CheckpointNeeds
from megatron.doctor.facts.config_files import NamedFile
from megatron.doctor.facts.disks import Disk
from megatron.doctor.facts.torch_facts import TorchFacts
from megatron.doctor.findings import Finding
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.resolving.checks.fp8 import LIBRARY_KEYS

FLASH_ATTN_LARGEST_HEAD = 256
HOPPER = (9, 0)
"""As the packages have it (megatron/model/attention/flash_packages.py)."""

GPU_KERNELS = ("cudnn", "efficient")
"""Values of sdpa_backend that a CPU does not have."""

FIRST_FP8_CAPABILITY = (8, 9)
"""Of GPUs that multiply in fp8, as torch has it (megatron/mpu/fp8.py)."""

WAY_TO_DATA = (
    "tokenise the text first (prepare_data.py, tools/datasets/preprocess_data.py), or correct the prefix (without .bin)"
)


def judge_features(args: NeoXArgs, torch: TorchFacts, installed: Mapping[str, str]) -> list[Finding]:
    """Precision and attention on the devices of this machine."""
    return [*_precision(args, torch), *_fp8(args, torch), *_attention(args, torch, installed)]


def judge_files(files: Sequence[NamedFile]) -> list[Finding]:
    """Datasets: a failure for each that cannot be used, one line for the others."""
    findings = [
        Finding(file.key, "failure", f"{file.path} {file.problem}", WAY_TO_DATA) for file in files if file.problem
    ]
    good = [file for file in files if not file.problem]
    if good:
        size = text.memory(sum(file.bytes for file in good))
        findings.append(Finding("data", "ok", f"{len(good)} file{'s' if len(good) > 1 else ''}, {size}, can be read"))
    return findings


def judge_room(needs: CheckpointNeeds | None, disk: Disk | None) -> list[Finding]:
    """Space for checkpoints. disk: where they lie."""
    if needs is None or disk is None or disk.problem:
        return []
    left = max(needs.at_once - needs.present, 1)
    assumed = " (the vocabulary is assumed)" if needs.is_assumed else ""
    about = f"a checkpoint takes {text.memory(needs.bytes)}{assumed}"
    several = f", {left} of them {text.memory(left * needs.bytes)}" if left > 1 else ""
    free = f"{text.memory(disk.free_bytes)} are free in {needs.directory}"
    if needs.bytes > disk.free_bytes:
        return [Finding("checkpoints", "failure", f"{about}, and {free}", "free some space, or save elsewhere (save)")]
    if left * needs.bytes > disk.free_bytes:
        fix = (
            "set keep_last_n_checkpoints (fewer are kept), or checkpoint_factor (fewer are written), or free some space"
        )
        return [Finding("checkpoints", "warning", f"{about}{several}, and {free}", fix)]
    return [Finding("checkpoints", "ok", f"{about}{several}; {free}")]


def judge_places(places: Mapping[str, Disk]) -> list[Finding]:
    """The folders that a run writes to, by their keys."""
    findings = [
        Finding(
            key,
            "failure",
            f"{disk.path}: {disk.problem}",
            f"give another folder with {key}, or the permission to write there",
        )
        for key, disk in places.items()
        if disk.problem
    ]
    good = [
        f"{key} {disk.path} ({text.memory(disk.free_bytes)} free)" for key, disk in places.items() if not disk.problem
    ]
    return findings + ([Finding("places", "ok", f"can be written: {', '.join(good)}")] if good else [])


def judge_copy(args: NeoXArgs, needs: CheckpointNeeds | None, *, processes: int, available: int) -> list[Finding]:
    """The copy of the state in host memory that async_save keeps. processes: of the job on this machine; available: bytes of memory here."""
    if needs is None or not args.async_save or not available:
        return []
    share = needs.bytes * processes // max(args.global_num_gpus, 1)
    about = f"async_save keeps a copy of {text.memory(share)} in this machine's memory, of which {text.memory(available)} are available"
    if share > available:
        return [
            Finding("async_save", "failure", about, "set async_save to false, or divide the run over more machines")
        ]
    return [Finding("async_save", "ok", about)]


def _precision(args: NeoXArgs, torch: TorchFacts) -> Iterator[Finding]:
    lacking = sorted({device.name for device in torch.devices if not device.has_bfloat16})
    if args.precision == "bfloat16" and lacking:
        yield Finding(
            "precision",
            "failure",
            f"bfloat16, which {', '.join(lacking)} cannot compute",
            'set precision to "fp16" or "fp32"',
        )
    else:
        yield Finding("precision", "ok", f"{args.precision} on {'these GPUs' if torch.devices else 'the CPU'}")


def _fp8(args: NeoXArgs, torch: TorchFacts) -> Iterator[Finding]:
    asked = [key for key in ("fp8", *LIBRARY_KEYS) if getattr(args, key) not in ("none", False)]
    if not asked:
        return
    keys, need = ", ".join(asked), ".".join(map(str, FIRST_FP8_CAPABILITY))
    lacking = sorted({device.name for device in torch.devices if device.capability < FIRST_FP8_CAPABILITY})
    if torch.rocm:
        yield Finding("fp8", "failure", f"{keys}, which is not built for AMD GPUs", f"remove {keys}")
    elif lacking:
        text = f"{keys}, which {', '.join(lacking)} cannot compute: it takes compute capability {need}"
        yield Finding("fp8", "failure", text, f"remove {keys}")
    else:
        yield Finding("fp8", "ok", f"{keys} on {'these GPUs' if torch.devices else 'the CPU, which is slower with it'}")


def _attention(args: NeoXArgs, torch: TorchFacts, installed: Mapping[str, str]) -> Iterator[Finding]:
    types = set(args.attention_config)
    if not torch.devices:
        if args.sdpa_backend in GPU_KERNELS:
            text = f'"sdpa_backend" {args.sdpa_backend} is a kernel of GPUs, and there is none here'
            yield Finding("attention", "failure", text, 'set sdpa_backend to "auto"')
        return
    if "flex" in types and ("triton" not in installed or torch.imports.get("triton")):
        yield Finding(
            "attention",
            "failure",
            'type "flex" is compiled with Triton on a GPU, which cannot be imported here',
            'pip install triton, or take "flash" in attention_config',
        )
    usable = "flash-attn" in installed and not torch.imports.get("flash_attn")
    usable |= _has_flash_attn_3(args, torch, installed)
    fits = torch.cuda and args.precision != "fp32" and args.head_dim <= FLASH_ATTN_LARGEST_HEAD
    if "flash" in types and fits and not usable:
        window = args.sliding_window_width is not None and args.sliding_window_width < args.seq_length
        yield _flash_by_torch(window=window, documents=args.reset_attention_mask)


def _has_flash_attn_3(args: NeoXArgs, torch: TorchFacts, installed: Mapping[str, str]) -> bool:
    """Whether FlashAttention 3 is there and serves the config, as megatron/model/attention/flash_packages.py chooses."""
    are_hopper = all(device.capability == HOPPER for device in torch.devices)
    is_there = "flash-attn-3" in installed and not torch.imports.get("flash_attn_interface")
    return is_there and are_hopper and args.pos_emb != "alibi" and args.head_dim % 8 == 0


def _flash_by_torch(*, window: bool, documents: bool) -> Finding:
    """Attention "flash" without its package."""
    if not (window or documents):
        return Finding("attention", "ok", 'type "flash" by torch, which needs no mask for this config')
    what = "documents that do not see each other" if documents else "a window shorter than the sequence"
    size = "[micro-batch, 1, sequence, sequence]" if documents else "[sequence, sequence]"
    text = f'type "flash" without the flash-attn package: {what} cost a mask {size}, the numbers are the same'
    return Finding(
        "attention",
        "warning",
        text,
        'pip install --no-build-isolation -r requirements/requirements-flashattention.txt, or take "flex"',
    )
