"""What blocks can be compiled with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.resolving.checks.fp8 import LIBRARY_KEYS

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_compile_with_zero(args: Draft) -> None:
    """ZeRO 3 gathers weights by hooks on the modules inside a block, which its graphs do not have."""
    if args.compile and args.zero_stage == 3:
        raise Conflict(
            ("compile", "zero_stage"),
            "ZeRO 3 gathers the weights of each layer while it runs, which compiled blocks do not wait for; set compile to false, or the stage to 2",
        )


def check_compile_with_transformer_engine(args: Draft) -> None:
    """The modules of Transformer Engine are no graphs of torch's."""
    library = next((key for key in LIBRARY_KEYS if getattr(args, key)), None)
    if args.compile and library is not None:
        raise Conflict(("compile", library), "Transformer Engine brings kernels of its own; set compile to false")
