"""Packages that a run can do without: what asks for each, what is used in its place, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Optional:
    """name: of the package; module: what is imported of it; asked_by: what in a config or command uses it; instead: what happens without it."""

    name: str
    module: str
    asked_by: str
    instead: str


OPTIONAL = (
    Optional(
        "flash-attn",
        "flash_attn",
        'attention "flash" on NVIDIA GPUs',
        "torch's scaled dot product attention is used: the same numbers; a window shorter than the sequence needs a mask of sequence x "
        "sequence, documents that do not see each other one for each sample (attention flex needs none)",
    ),
    Optional(
        "flash-attn-3",
        "flash_attn_interface",
        'attention "flash" on Hopper GPUs (compute capability 9.0)',
        "flash-attn or torch's attention is used: the same numbers",
    ),
    Optional(
        "triton",
        "triton",
        'compile and attention "flex" on GPUs, which torch compiles with it, and the keys of fused kernels (rmsnorm_fusion and so on)',
        "on a CPU blocks are compiled with g++, flex is computed as flash is, and plain torch does what kernels would: the same numbers",
    ),
    Optional(
        "transformer-engine",
        "transformer_engine",
        "te_columnparallel, te_rowparallel, te_layernorm_mlp, te_mha, and the norms te_layernorm and te_rmsnorm",
        "torch's own fp8 products (fp8: tensorwise) and norms are used where a config asks for them instead",
    ),
    Optional("sentencepiece", "sentencepiece", "tokenizer_type SPMTokenizer", "no other package reads its models"),
    Optional("tiktoken", "tiktoken", "tokenizer_type TiktokenTokenizer", "no other package reads its encodings"),
    Optional(
        "gigatoken",
        "gigatoken",
        "preprocess_data.py, for tokenizers like those of GPT-2, GPT-NeoX, Llama 3 and Qwen",
        "tokenizers does it: the same ids, 6 to 8 times as long (64 MB of text on two cores, tools/benchmark/tokenize.py)",
    ),
    Optional(
        "transformers",
        "transformers",
        "tools/ckpts: the proof that a converted model computes the same",
        "models are read by training and generation all the same, and not exported, for want of the proof",
    ),
    Optional("lm-eval", "lm_eval", "eval.py, and eval_tasks while training", "validation sets are measured without it"),
    Optional("tensorboard", "tensorboard", "tensorboard_dir", "metrics.jsonl has the same numbers"),
    Optional("wandb", "wandb", "use_wandb", "metrics.jsonl has the same numbers"),
    Optional("comet-ml", "comet_ml", "use_comet", "metrics.jsonl has the same numbers"),
    Optional("s3fs", "s3fs", "save, load and s3_path with s3:// URLs", "checkpoints lie in directories"),
    Optional("gcsfs", "gcsfs", "save, load and s3_path with gs:// URLs", "checkpoints lie in directories"),
    Optional("zstandard", "zstandard", "preprocess_data.py with .zst files", "other compressions need no package"),
    Optional("pyarrow", "pyarrow", "preprocess_data.py with .parquet files", "other formats need no package"),
    Optional("ftfy", "ftfy", "preprocess_data.py --ftfy", "texts are taken as they are"),
)


def packages_to_look_for() -> tuple[str, ...]:
    """Those that no requirements file names, too."""
    return tuple(package.name for package in OPTIONAL)
