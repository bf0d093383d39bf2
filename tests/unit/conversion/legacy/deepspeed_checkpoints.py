"""Lets DeepSpeed save engines of our tests in the files, and under the names, of GPT-NeoX: what its users have, with known content.

Of here are only the names of parameters, and which file the weights of a pipeline's layer go to; the rest is DeepSpeed's own code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._utils import _unflatten_dense_tensors

from megatron.engine.grid import Grid
from megatron.engine.library import deepspeed
from megatron.engine.pieces import shard_pieces
from megatron.model.sequential import SequentialModel
from megatron.model.spec import DTYPES, BuildContext
from megatron.mpu.groups import ProcessGroups
from megatron.mpu.shard import shard_of
from megatron.neox_arguments.deepspeed_config import build_deepspeed_config
from megatron.optim.build import build_optimizer
from megatron.optim.lr_schedules import learning_rate
from tests.deepspeed_world import ROWS, Case, Engines, Pieces
from tests.toy_model import ToyObjective, global_batch, rows_of


def save_like_neox(started: Engines, directory: Path, *, iteration: int) -> None:
    """Save `global_step{iteration}` in `directory` (collective)."""
    library = started.engine.library_engine  # type: ignore[attr-defined]
    scaler = getattr(library.optimizer, "loss_scaler", None)
    # Our engine has put a function of its own into the scaler, which is saved as a whole.
    update = vars(scaler).pop("update_scale", None) if scaler is not None else None
    save_library_engine(library, directory, iteration=iteration, groups=started.groups)
    if update is not None:
        scaler.update_scale = update


def save_library_engine(library: Any, directory: Path, *, iteration: int, groups: ProcessGroups) -> None:
    """The same of an engine of DeepSpeed."""
    is_pipeline = hasattr(library, "is_last_stage")
    names, module = library.param_names, library.module
    library.param_names = {parameter: _their_name(name, is_pipeline=is_pipeline) for parameter, name in names.items()}
    if is_pipeline:
        module.save_state_dict = lambda folder, **options: _save_layers(module, Path(folder), groups)
    else:
        # What is tied is named once, as it is there.
        weights = {f"sequential.{name}": parameter.detach() for name, parameter in module.named_parameters()}
        library.module_state_dict = lambda **options: weights
    library.save_checkpoint(str(directory), tag=f"global_step{iteration}", client_state={"iteration": iteration})
    library.param_names = names


def _their_name(name: str, *, is_pipeline: bool) -> str:
    """What GPT-NeoX calls a parameter. In a pipeline the embedding is the module of a tie, which its head shares."""
    if not is_pipeline:
        return f"sequential.{name}"
    _, _, rest = name.partition(".")
    return f"tied_modules.embed.{rest}" if rest.startswith("word_embeddings.") else name


def _save_layers(module: Any, folder: Path, groups: ProcessGroups) -> None:
    """The files of the layers of a stage, as DeepSpeed's PipelineModule writes them; a tied head has none."""
    for number, layer in module.named_children():
        weights = {name: value.detach().clone() for name, value in layer.state_dict().items()}
        if weights and groups.data.rank == 0 and type(layer).__name__ != "TiedHead":
            torch.save(weights, folder / f"layer_{int(number):02d}-model_{groups.tensor.rank:02d}-model_states.pt")


class WithoutZero:
    """A model of ours in DeepSpeed's plain engine without ZeRO, which our engines never use: in fp32, or in fp16 with its `FP16_Optimizer`."""

    def __init__(self, case: Case, groups: ProcessGroups) -> None:
        args = self._args = case.arguments()
        self._groups = groups
        self.model = SequentialModel(case.specs(), BuildContext(groups.tensor, DTYPES[args.precision]), seed=args.seed)
        self.optimizer = build_optimizer(args, self.model.parameters())
        config = build_deepspeed_config(args)
        config |= {"zero_optimization": {"stage": 0}, "data_types": {}, "steps_per_print": None}
        # DeepSpeed keeps flat fp32 weights only for its own compiled optimizer, which it must take ours for.
        fused, deepspeed.runtime.engine.FusedAdam = deepspeed.runtime.engine.FusedAdam, torch.optim.AdamW
        try:
            self.library, *_ = deepspeed.initialize(
                model=self.model, optimizer=self.optimizer, config=config, mpu=Grid(groups)
            )
        finally:
            deepspeed.runtime.engine.FusedAdam = fused

    def step(self, number: int) -> float:
        """Train on a global batch, as our engines do; its loss."""
        data, batch = self._groups.data, global_batch(number, ROWS)
        share = ROWS // data.size
        own = rows_of(batch, data.rank * share, (data.rank + 1) * share)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self._args, number)
        objective = ToyObjective(self._groups.tensor)
        loss = objective.loss_sum(self.library(own.tokens, own.position_ids), own) / objective.weight(batch)
        self.library.backward(loss.float() * data.size)
        self.library.step()
        total = loss.detach().float()
        dist.all_reduce(total, group=data.handle)
        return float(total)

    def pieces(self) -> Pieces:
        """What this rank holds of every full tensor, as `own_pieces` gives it of our engines."""
        pieces: Pieces = {}
        for parameter, tensors in self._states():
            info = shard_of(parameter)
            if not (info.is_sharded or info.rank == 0):
                continue
            for kind, values in tensors.items():
                cut = shard_pieces(info, 0, values.detach().reshape(-1))
                pieces[f"{info.name}/{kind}"] = (
                    info.logical_shape,
                    [(piece.offsets, piece.tensor.numpy().copy()) for piece in cut],
                )
        return pieces

    def scalars(self) -> dict[str, float | int]:
        """The count of steps, and the state of a dynamic loss scale, under our names."""
        (step,) = {int(state["step"]) for state in self.optimizer.state.values()}
        scale = getattr(self.library.optimizer, "loss_scale_config", None)
        if scale is None or not scale.dynamic_loss_scale:
            return {"optimizer_step": step}
        return {
            "optimizer_step": step,
            "loss_scale": scale.cur_scale,
            "loss_scale_iteration": scale.cur_iter,
            "loss_scale_last_overflow": scale.last_overflow_iter,
        }

    def _states(self) -> list[tuple[torch.nn.Parameter, dict[str, torch.Tensor]]]:
        wrapped = self.library.optimizer
        if not hasattr(wrapped, "fp32_groups_flat"):
            return [(p, {"weight": p, **_moments(self.optimizer, p)}) for p in self.model.parameters()]
        found = []
        for parameters, flat in zip(wrapped.fp16_groups, wrapped.fp32_groups_flat, strict=True):
            whole = {"weight": flat, **_moments(self.optimizer, flat)}
            cut = {kind: _unflatten_dense_tensors(values, parameters) for kind, values in whole.items()}
            found += [(p, {kind: cut[kind][index] for kind in cut}) for index, p in enumerate(parameters)]
        return found


def _moments(optimizer: torch.optim.Optimizer, key: torch.Tensor) -> dict[str, torch.Tensor]:
    return {kind: optimizer.state[key][kind] for kind in ("exp_avg", "exp_avg_sq")}
