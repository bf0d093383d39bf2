"""A cell of the matrix: a way to cut the work over processes, and a model and batch to be cut. Everything else follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from megatron.neox_arguments import NeoXArgs

VOCABULARY = 60  # several tensor ranks need rows of padding, one process none
SEQUENCE, ROWS, HEADS, HIDDEN = 8, 16, 8, 32
STEPS, SEED = 5, 7


@dataclass(frozen=True)
class Grid:
    """How many processes, and what each of them has. pipe = 0 is the sequential engine, 1 the pipeline engine with one stage."""

    data: int = 1
    tensor: int = 1
    context: int = 1
    pipe: int = 0
    in_sequence: bool = False

    @property
    def processes(self) -> int:
        return self.data * self.tensor * self.context * max(self.pipe, 1)

    def __str__(self) -> str:
        sizes = {"data": self.data, "context": self.context, "tensor": self.tensor}
        words = [f"pipe {self.pipe}"] if self.pipe else []
        words += [f"{name} {size}" for name, size in sizes.items() if size > 1]
        return " x ".join(words or ["one process"]) + (", in sequence" if self.in_sequence else "")


ONE = Grid()

# Smaller than every parameter: all are divided among the ranks, fetched for use, released, and updated in several sub-groups.
DIVIDE_ALL = {
    "stage3_param_persistence_threshold": 0,
    "stage3_prefetch_bucket_size": 100,
    "stage3_max_live_parameters": 100,
    "sub_group_size": 2000,
}
SMALL_BUCKETS = {"reduce_bucket_size": 3000, "allgather_bucket_size": 3000}

HEAD_KINDS = {"multi": HEADS, "grouped": HEADS // 2, "one": 1}
RESIDUALS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "parallel": {"gpt_j_residual": True},
    "parallel, one norm": {"gpt_j_residual": True, "gpt_j_tied": True},
    "post-norm": {"norm_position": "post"},
}
POSITIONS: dict[str, dict[str, Any]] = {
    "learned": {"pos_emb": "learned"},
    "rotary": {"pos_emb": "rotary"},
    "half rotary": {"pos_emb": "rotary", "rotary_pct": 0.5},
    "no positions": {"pos_emb": "none"},
    "scaled rotary": {
        "pos_emb": "rotary",
        "rope_scaling": {
            "type": "llama3",
            "factor": 4,
            "low_freq_factor": 1,
            "high_freq_factor": 4,
            "original_max_position_embeddings": 32,
        },
    },
}
HEAD_NORMS: dict[str, dict[str, Any]] = {
    "": {},
    "norm of each head": {"use_qk_layernorm": True, "qk_layernorm_scope": "head"},
    "norm of all heads": {"use_qk_layernorm": True, "qk_layernorm_scope": "all_heads"},
}
NO_BIASES = {"use_bias_in_attn_linear": False, "use_bias_in_mlp": False, "use_bias_in_norms": False}
BIASES: dict[str, dict[str, Any]] = {
    "all biases": {},
    "no biases": NO_BIASES,
    "biases of queries, keys, values": {
        **NO_BIASES,
        "use_bias_in_attn_linear": True,
        "use_bias_in_attn_output": False,
    },
}


@dataclass(frozen=True)
class Cell:
    """One way to run one model; the first values are those of a plain run.

    recompute: blocks computed anew together, 0 = none; mask: which tokens count; extra: further keys of the configuration
    that must change nothing, for cells that stand for one of them, and `title` names them.
    """

    grid: Grid = ONE
    zero: int = 0
    partition: str = "type:transformer"
    blocks: int = 4
    recompute: int = 0
    accumulation: int = 1
    precision: str = "fp64"
    mask: str = "all tokens"
    tied: bool = False
    heads: str = "multi"
    residual: str = "sequential"
    activation: str = "gelu"
    positions: str = "learned"
    norm: str = "layernorm"
    head_norm: str = ""
    window: int = 0
    attention: str = "global"
    biases: str = "all biases"
    dropout: float = 0.0
    clipping: float = 0.05
    title: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @cached_property
    def name(self) -> str:
        """What is not plain about the cell, in the order of the fields."""
        words = [str(self.grid), *(word for word in map(self._word, fields(self)[1:-2]) if word), self.title]
        return ", ".join(word for word in words if word)

    def _word(self, field: Any) -> str:
        value = getattr(self, field.name)
        if value == field.default:
            return ""
        if field.name in ("precision", "mask", "residual", "activation", "positions", "norm", "head_norm", "biases"):
            return str(value)
        return field.name if value is True else f"{field.name} {value}"

    @property
    def processes(self) -> int:
        return self.grid.processes

    def on_one_process(self) -> Cell:
        """The same model and batches, run plainly."""
        return replace(
            self,
            grid=ONE,
            zero=0,
            partition="type:transformer",
            recompute=0,
            precision="fp64",
            accumulation=1,
            title="",
            extra={},
        )

    def arguments(self) -> NeoXArgs:
        """The configuration of the cell."""
        return NeoXArgs.from_dict(self.settings())

    def settings(self) -> dict[str, Any]:
        """What a user would write.

        Adam's eps is large, so that a gradient off by a factor changes the steps; with a small one they are blind to it.
        """
        grid = self.grid
        zero = {0: {}, 1: SMALL_BUCKETS, 2: SMALL_BUCKETS, 3: DIVIDE_ALL}[self.zero]
        settings: dict[str, Any] = {
            "num_layers": self.blocks,
            "hidden_size": HIDDEN,
            "num_attention_heads": HEADS,
            "num_kv_heads": HEAD_KINDS[self.heads],
            "seq_length": SEQUENCE,
            "max_position_embeddings": SEQUENCE,
            "make_vocab_size_divisible_by": 4,
            "mlp_multiple_of": 8,
            "train_iters": 20,
            "seed": SEED,
            "global_num_gpus": grid.processes,
            "pipe_parallel_size": grid.pipe,
            "model_parallel_size": grid.tensor,
            "context_parallel_size": grid.context,
            "sequence_parallel": grid.in_sequence,
            "pipe_partition_method": self.partition,
            "train_micro_batch_size_per_gpu": ROWS // (grid.data * self.accumulation),
            "gradient_accumulation_steps": self.accumulation,
            "precision": "fp32" if self.precision == "fp64" else self.precision,
            "zero_optimization": {"stage": self.zero, **zero},
            "checkpoint_activations": self.recompute > 0,
            "checkpoint_num_layers": max(self.recompute, 1),
            "optimizer": {"type": "Adam", "params": {"lr": 0.001, "betas": [0.9, 0.95], "eps": 1e-3}},
            "weight_decay": 0.1,
            "gradient_clipping": self.clipping,
            "lr_decay_style": "cosine",
            "warmup": 0.2,
            "init_method_std": 0.2,
            "no_weight_tying": not self.tied,
            "activation": self.activation,
            "norm": self.norm,
            "attention_config": [[[self.attention], "all"]],
            "hidden_dropout": self.dropout,
            "attention_dropout": self.dropout,
            "reset_attention_mask": self.mask == "documents",
            **RESIDUALS[self.residual],
            **POSITIONS[self.positions],
            **HEAD_NORMS[self.head_norm],
            **BIASES[self.biases],
        }
        if self.window:
            settings["sliding_window_width"] = self.window
        return {**settings, **self.extra}
