"""The model of a training engine as generation and evaluation run it: its very parameters, without what training adds around them.

No dropout, no recomputation, no sequence parallelism, and no sequence is cut over context ranks: those that share sequences in training
are replicas here. The modules are made anew and hold no weights of their own, so nothing that DeepSpeed hooks to the model is touched.
"""

from __future__ import annotations

import torch

from megatron.engine.protocol import Engine
from megatron.generation.model import InferenceModel, inference_specs
from megatron.model.spec import DTYPES, BuildContext
from megatron.neox_arguments import NeoXArgs


def inference_view(args: NeoXArgs, engine: Engine, *, vocab_size: int, device: torch.device) -> InferenceModel:
    """This rank's part of the model, which computes with the weights that the engine has at any time.

    vocab_size: rows of the vocabulary without padding. Where the engine's weights are in pieces (`weights_are_whole`), all replicas must
    make the same calls; elsewhere those of one model (`groups.model`).
    """
    held = {name for name, _ in engine.model.named_children()}
    specs = [spec for spec in inference_specs(args, vocab_size=vocab_size) if str(spec.number) in held]
    context = BuildContext(engine.groups.tensor, DTYPES[args.precision], "meta")
    model = InferenceModel(
        specs,
        context,
        groups=engine.groups,
        device=device,
        hidden_size=args.hidden_size,
        whole_weights=engine.whole_weights,
    )
    model.borrow_weights(engine.model)
    return model
