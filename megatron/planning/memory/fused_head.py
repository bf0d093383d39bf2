"""What the loss takes where it is computed together with the head's projection (`megatron.mpu.linear_cross_entropy`), in bytes a device."""

from __future__ import annotations

from megatron.mpu.row_chunks import block_rows, chunk_rows, is_narrow
from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.derive import derive_fused_head
from megatron.planning.memory.sizes import INTEGER, WIDE, Sizes


def fuses_head(args: NeoXArgs) -> bool:
    """Whether it is."""
    return derive_fused_head(args.fused_linear_cross_entropy, precision=args.precision, train_impl=args.train_impl)


def fused_loss_bytes(sizes: Sizes, *, columns: int) -> int:
    """At most, of local logits of `columns` columns: the head's input, the gradients of it and of the matrix, and one chunk of rows.

    Either the last chunk's rows are computed, or its product is added to the matrix's gradient of the chunks before.
    """
    number, tokens = sizes.number, sizes.tokens
    rows = chunk_rows(tokens, row_bytes=number * columns)
    block = block_rows(rows, row_bytes=WIDE * columns, device=sizes.device)
    matrix = sizes.hidden * columns
    narrow = is_narrow(-(-tokens // rows))
    whole = number * tokens * sizes.hidden
    gathered = 2 * whole if sizes.stream_tokens < sizes.tokens else 0
    products = 0 if narrow or not sizes.is_half else number * matrix
    # Labels, columns, weights, coefficients and three masks; and three statistics: of blocks, together, and of every rank.
    targets = tokens * (2 * INTEGER + 2 * WIDE + 3 + 3 * WIDE * (2 + (sizes.tensor if sizes.tensor > 1 else 0)))
    return (
        2 * sizes.stream
        + gathered
        + targets
        + (number if narrow else WIDE) * matrix
        + number * rows * columns
        + max(WIDE * block * columns, products)
    )
