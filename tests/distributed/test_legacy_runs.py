"""A run that DeepSpeed saved under GPT-NeoX's names goes on as a whole: its steps, data, dropout and learning rates, where it was."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.initialize import join_world
from megatron.neox_arguments import NeoXArgs
from megatron.training.loop import train
from megatron.training.setup import build_run
from tests.unit.conversion.legacy.deepspeed_checkpoints import save_library_engine
from tests.worlds import error_of, run_world

LENGTH, SAVED_AT, STEPS = 16, 3, 6
CONFIG = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "seq_length": LENGTH,
    "max_position_embeddings": LENGTH,
    "init_method_std": 0.3,
    "hidden_dropout": 0.1,
    "train_batch_size": 4,
    "train_iters": STEPS,
    "lr": 1e-2,
    "lr_decay_style": "cosine",
    "warmup": 0.5,
    "split": "100,0,0",
    "eval_iters": 0,
    "num_workers": 0,
    "tokenizer_type": "CharLevelTokenizer",
    "precision": "bfloat16",
    "global_num_gpus": 2,
    "log_interval": 1,
}


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with IndexedDatasetWriter(tmp_path / "data", dtype=np.uint16) as writer:
        for length in generator.integers(5, 60, size=40):
            writer.add_document(generator.integers(1, 200, size=length))
    (unbroken, continued, weights_alone, fine_tuned, in_place), unsafe, again = run_world(2, _runs, tmp_path)[0]
    assert "optim_states.pt names datetime.timedelta, which is more than tensors" in unsafe
    assert (
        f"holds checkpoints of GPT-NeoX of later iterations than 0, where the run begins (global_step{SAVED_AT})"
        in again
    )
    assert list(unbroken) == list(range(1, STEPS + 1))
    assert continued == {step: values for step, values in unbroken.items() if step > SAVED_AT}
    # Without the moments it is another run, but the same steps of it.
    assert list(weights_alone) == list(continued)
    assert weights_alone[SAVED_AT + 1]["lr"] == continued[SAVED_AT + 1]["lr"]
    assert weights_alone[STEPS]["loss"] != continued[STEPS]["loss"]
    # A new run with them: from the first step, whose weights are others.
    assert list(fine_tuned) == [1]
    assert fine_tuned[1]["lr"] == unbroken[1]["lr"]
    assert fine_tuned[1]["loss"] != unbroken[1]["loss"]
    # Where load and save are one directory, the next start goes on from our own, and theirs stay.
    assert in_place == continued
    left = {path.name for path in (tmp_path / "neox").glob("global_step*")}
    assert left == {f"global_step{SAVED_AT}", f"global_step{STEPS}"}
    assert (tmp_path / "neox" / f"global_step{SAVED_AT}" / "mp_rank_00_model_states.pt").exists()


Metrics = dict[int, dict[str, float]]


def _runs(rank: int, directory: Path) -> tuple[tuple[Metrics, ...], str, str]:
    saved = directory / "neox"
    _run(directory, "first", save_to=saved, exit_interval=SAVED_AT)
    unsafe = directory / "unsafe"
    if rank == 0:
        shutil.copytree(saved, unsafe)
        file = next(unsafe.glob("*/*rank_0_*optim_states.pt"))
        torch.save({**torch.load(file, weights_only=False), "author": timedelta(1)}, file)
    dist.barrier()
    here = {"load": str(saved), "save": str(saved), "keep_last_n_checkpoints": 1}
    refused = error_of(lambda: _run(directory, "unsafe", load=str(unsafe)))
    not_replaced = error_of(lambda: _run(directory, "again", **here, finetune=True))
    runs = (
        _run(directory, "unbroken"),
        _run(directory, "continued", load=str(saved)),
        _run(directory, "weights", load=str(saved), no_load_optim=True),
        _run(directory, "fine-tuned", load=str(saved), finetune=True, exit_interval=1),
        {
            **_run(directory, "in place", **here, exit_interval=SAVED_AT + 1),
            **_run(directory, "in place again", **here),
        },
    )
    return runs, refused, not_replaced


def _run(directory: Path, name: str, *, save_to: Path | None = None, **changes: Any) -> Metrics:
    """Train as configured; loss and learning rate of each step. save_to: save the end as GPT-NeoX would."""
    places = {"data_path": str(directory / "data"), "log_dir": str(directory / name)}
    args = NeoXArgs.from_dict({**CONFIG, **places, **changes})
    run, state = build_run(args, join_world(args))
    state = train(run, state)
    run.reporter.close()
    if save_to is not None:
        save_library_engine(run.engine.library_engine, save_to, iteration=state.iteration, groups=run.engine.groups)  # type: ignore[attr-defined]
    dist.barrier()
    records = map(json.loads, (directory / name / "metrics.jsonl").read_text().splitlines())
    return {record["iteration"]: {"loss": record["loss"], "lr": record["lr"]} for record in records if "loss" in record}
