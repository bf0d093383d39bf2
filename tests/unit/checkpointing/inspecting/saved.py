"""A checkpoint of a small model with all that a run leaves in one, cut at random among processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.checkpointing.saving.save import save_checkpoint
from megatron.checkpointing.settings import settings_yaml
from megatron.data.ledger.segments import DatasetFiles, Ledger, OrderKeys, Reached, Segment, SourceRecord
from megatron.mpu.topology import Topology
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import BatchSchedule
from megatron.neox_arguments.sequence_schedule import FullLength
from tests.unit.checkpointing.fakes import fake_engine
from tests.unit.neox_arguments.minimal import build

PARAMETERS: dict[str, tuple[int, ...]] = {
    "0.word_embeddings.weight": (37, 6),
    "2.attention.dense.bias": (7,),
    "2.attention.dense.weight": (7, 7),
    "2.mlp.linear1.weight": (3, 8, 5),
    "10.norm.scale": (),
}
RUN_STATE = {"iteration": 3, "consumed_samples": 24, "recent_losses": [2.5, 2.25]}


def random_values(seed: int = 0, *, kinds: tuple[str, ...] = ("weight", "exp_avg", "exp_avg_sq")) -> dict[str, Tensor]:
    """Normal values for every tensor."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}/{kind}": torch.randn(shape, generator=generator)
        for name, shape in PARAMETERS.items()
        for kind in kinds
    }


def save_run(
    directory: Path,
    values: dict[str, Tensor] | None = None,
    *,
    iteration: int = 3,
    seed: int = 1,
    run_state: dict[str, Any] | None = None,
    args: NeoXArgs | None = None,
) -> Path:
    """Save the values, cut by the seed, with settings and ledger; the checkpoint."""
    values = random_values() if values is None else values
    engine = fake_engine({name: tuple(tensor.shape) for name, tensor in values.items()}, seed=seed).fill(values)
    origins = {"num_layers": "configs/small.yml:3:1", "seed": "command line"}
    args = args or NeoXArgs.from_resolved(build(seed=7).to_dict(), origins=origins)
    return save_checkpoint(
        directory,
        engine,
        iteration=iteration,
        run_state=RUN_STATE if run_state is None else run_state,
        config_yaml=settings_yaml(args),
        files={"data.json": ledger(iteration).to_json()},
    )


def ledger(iteration: int) -> Ledger:
    """Of a run with one dataset."""
    files = DatasetFiles("/data/text_document", "a" * 32, "b" * 32)
    source = SourceRecord(files, None, (0, 90), 5000, 1.0, 80, Reached(24, 768, 0.1536))
    segment = Segment(
        iteration=0,
        train_iters=10,
        schedule=BatchSchedule.constant(8),
        lengths=FullLength(32),
        micro_batch=4,
        topology=Topology(data=2),
        keys=OrderKeys(32, "packed", True, 1234),
        is_split=True,
        num_samples=80,
        sources=(source,),
    )
    return Ledger((segment,), iteration=iteration)


def damage(checkpoint: Path) -> Path:
    """Change one byte in the middle of a file of values; the file."""
    file = next(path for path in sorted(checkpoint.glob("*.distcp")) if path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file
