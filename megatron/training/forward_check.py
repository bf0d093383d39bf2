"""Whether a loaded model computes what it computed when it was saved: the losses of a forward pass over made-up text.

The text depends on the size of the vocabulary and the length of the sequence alone, and every sample of a pass is the same, so that
neither data, batch sizes nor layout matter. A few numbers stand for all weights: one that is not loaded, or a setting that changes
what they compute, moves them far beyond rounding.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from megatron.checkpointing.ranks import Ranks
from megatron.data.batch import Batch
from megatron.data.cut_sequence import cut_sequence
from megatron.engine.protocol import Engine
from megatron.errors import CheckpointError
from megatron.log import get_logger
from megatron.mpu.groups import Group
from megatron.neox_arguments import NeoXArgs

logger = get_logger(__name__)

FILE = "forward_pass.json"
PASSES = 4
SEED = 20
TOLERANCE = {"fp32": 2e-5, "fp16": 5e-3, "bfloat16": 5e-3}
"""How far a loss may move, relative to itself: about ten times what was measured between layouts, whose rounding differs. A changed
setting moves it by more than 1e-2 in a model that has learnt a little."""


@dataclass(frozen=True)
class ForwardPass:
    """Losses in nats per token, one a text, and what they depend on beside the weights."""

    vocab_size: int
    seq_length: int
    precision: str
    losses: tuple[float, ...]

    def content(self) -> bytes:
        """For a file of a checkpoint."""
        return (json.dumps(asdict(self)) + "\n").encode()


def forward_pass(args: NeoXArgs, engine: Engine, *, vocab_size: int) -> ForwardPass:
    """Run it (collective): without gradients or random numbers, so that training goes on as if it had not been."""
    losses = []
    for number in range(PASSES):
        batch = _batch(args, made_up_text(number, vocab_size=vocab_size, length=args.seq_length), engine)
        batches = [batch] * args.gradient_accumulation_steps
        loss, weight = engine.evaluate_step(batches if engine.reads_data else None)
        losses.append(loss / weight)
    return ForwardPass(vocab_size, args.seq_length, args.precision, tuple(losses))


def forward_pass_file(args: NeoXArgs, engine: Engine, *, vocab_size: int) -> dict[str, bytes]:
    """The file of a checkpoint, by its name, that keeps a forward pass where the configuration asks for one (collective)."""
    if not args.checkpoint_validation_with_forward_pass:
        return {}
    return {FILE: forward_pass(args, engine, vocab_size=vocab_size).content()}


def check_forward_pass(checkpoint: Path, now: ForwardPass, group: Group) -> None:
    """Compare a forward pass with the one that was kept in a checkpoint (collective).

    Raises CheckpointError when they differ. It is a warning when the checkpoint has none to compare with.
    """
    ranks = Ranks(group, doing=f"reading {checkpoint / FILE}")
    then = ranks.first(lambda: read_forward_pass(checkpoint))
    if then is None or (then.vocab_size, then.seq_length) != (now.vocab_size, now.seq_length):
        if group.rank == 0:
            logger.warning(_not_compared(checkpoint, then, now))
        return
    tolerance = max(TOLERANCE.get(precision, max(TOLERANCE.values())) for precision in (then.precision, now.precision))
    pairs = list(zip(then.losses, now.losses, strict=True))
    worst = max(pairs, key=lambda pair: _deviation(*pair))
    if _deviation(*worst) > tolerance:
        raise CheckpointError(
            f"{checkpoint} does not compute what it did when it was saved: the loss of a forward pass over the same text was "
            f"{worst[0]:.6g} and is {worst[1]:.6g}, further apart than rounding ({tolerance:g} of it). A setting that changes what the "
            f"weights mean was changed (compare with {checkpoint / 'configs' / 'config.yml'}), or weights were not loaded; where the "
            "change is meant, set checkpoint_validation_with_forward_pass: false"
        )


def read_forward_pass(checkpoint: Path) -> ForwardPass | None:
    """What a checkpoint keeps of a forward pass; None when it was saved without. Raises CheckpointError for what cannot be read."""
    path = checkpoint / FILE
    if not path.exists():
        return None
    try:
        said = json.loads(path.read_bytes())
        losses = tuple(map(float, said["losses"]))
        return ForwardPass(int(said["vocab_size"]), int(said["seq_length"]), str(said["precision"]), losses)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def made_up_text(number: int, *, vocab_size: int, length: int) -> Tensor:
    """int64 [s + 1]: tokens drawn evenly, the same on every machine."""
    generator = torch.Generator().manual_seed(SEED + number)
    return torch.randint(0, vocab_size, (length + 1,), generator=generator)


def _batch(args: NeoXArgs, text: Tensor, engine: Engine) -> Batch:
    """A micro-batch of one rank that holds the text in every row, with all the fields that those of training have."""
    rows = args.train_micro_batch_size_per_gpu
    places = torch.arange(args.seq_length)
    whole = Batch(
        tokens=_repeated(text[:-1], rows),
        labels=_repeated(text[1:], rows),
        loss_mask=torch.ones(rows, args.seq_length),
        position_ids=_repeated(places, rows),
        document_ids=torch.zeros(rows, args.seq_length, dtype=torch.int32) if args.reset_attention_mask else None,
        dropout_keys=torch.zeros(rows, dtype=torch.int64) if args.hidden_dropout or args.attention_dropout else None,
    )
    return cut_sequence(whole, engine.groups.context)


def _repeated(row: Tensor, rows: int) -> Tensor:
    return row.expand(rows, -1).contiguous()


def _deviation(then: float, now: float) -> float:
    """How far apart two losses are, relative to the larger; infinite where just one is no number."""
    if not (math.isfinite(then) and math.isfinite(now)):
        return 0.0 if repr(then) == repr(now) else math.inf
    return abs(then - now) / max(abs(then), abs(now), 1e-30)


def _not_compared(checkpoint: Path, then: ForwardPass | None, now: ForwardPass) -> str:
    if then is None:
        reason = (
            f"it was saved without {FILE} (checkpoint_validation_with_forward_pass: true keeps one in each checkpoint)"
        )
    else:
        reason = (
            f"its forward pass had seq_length {then.seq_length} and a vocabulary of {then.vocab_size}, and this run has "
            f"{now.seq_length} and {now.vocab_size}"
        )
    return f"{checkpoint} is not validated with a forward pass: {reason}"
