"""What a child process tells of torch, and how it may fail to."""

from __future__ import annotations

import json
import sys

from megatron.doctor.facts.torch_facts import TorchDevice, TorchFacts, ask_torch, read_told

TORCH = {"version": "2.13.0", "cuda": "13.0", "rocm": "", "nccl": "2.28.3", "gloo": True}
DEVICE = {"name": "NVIDIA H100", "memory_bytes": 8, "capability": [9, 0], "has_bfloat16": True}


def told(*lines: dict[str, object]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_all_that_is_told_is_read() -> None:
    lines = told({"torch": {**TORCH, "devices": [DEVICE]}}, {"importing": "deepspeed"}, {"deepspeed": ""})
    facts = read_told(lines, ending="")
    assert facts == TorchFacts(
        **TORCH, devices=(TorchDevice("NVIDIA H100", 8, (9, 0), True),), imports={"deepspeed": ""}
    )


def test_the_module_that_was_being_imported_is_at_fault_for_a_crash() -> None:
    lines = told(
        {"torch": {**TORCH, "devices": []}}, {"importing": "triton"}, {"triton": ""}, {"importing": "flash_attn"}
    )
    facts = read_told(lines, ending="killed by signal 11")
    assert facts.imports == {"triton": "", "flash_attn": "killed by signal 11"}
    assert facts.problem == ""


def test_a_torch_that_cannot_be_imported_is_told_by_its_last_line() -> None:
    script = "import sys; print('Traceback ...', file=sys.stderr); raise ImportError('libcudart.so.13: cannot open shared object file')"
    facts = ask_torch((sys.executable, "-c", script))
    assert facts.problem == "ImportError: libcudart.so.13: cannot open shared object file"


def test_a_torch_that_crashes_is_told_by_its_signal() -> None:
    assert ask_torch((sys.executable, "-c", "import os; os.abort()")).problem.startswith("killed by signal 6")


def test_a_torch_that_hangs_is_given_up() -> None:
    script = f"import time; print({told({'torch': {**TORCH, 'devices': []}}, {'importing': 'deepspeed'})!r}, flush=True); time.sleep(20)"
    facts = ask_torch((sys.executable, "-IS", "-c", script), patience=1.5)
    assert facts.version == "2.13.0"
    assert facts.imports == {"deepspeed": "it did not end within 1.5 s"}
