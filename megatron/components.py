"""The menu: every name a config may choose, and where its code lives. Adding a component is adding its file and one line here."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.registry import Entry, Registry

ATTENTION = Registry(
    "attention type",
    {
        "global": "megatron.model.attention.global_attention:GlobalAttention",
        "flash": "megatron.model.attention.flash:FlashAttention",
        "flex": "megatron.model.attention.flex:FlexAttention",
    },
)

NORMS = Registry(
    "norm",
    {
        "layernorm": "megatron.model.norms.layernorm:LayerNorm",
        "rmsnorm": "megatron.model.norms.rmsnorm:RMSNorm",
        "non_parametric_layernorm": "megatron.model.norms.non_parametric:NonParametricLayerNorm",
        "scalenorm": "megatron.model.norms.scalenorm:ScaleNorm",
        "te_layernorm": Entry(
            "megatron.model.norms.transformer_engine:TransformerEngineLayerNorm", "requirements-transformer-engine.txt"
        ),
        "te_rmsnorm": Entry(
            "megatron.model.norms.transformer_engine:TransformerEngineRMSNorm", "requirements-transformer-engine.txt"
        ),
    },
)

POSITIONS = Registry(
    "position embedding",
    {
        "learned": "megatron.model.positions.learned:LearnedPositions",
        "rotary": "megatron.model.positions.rotary:RotaryPositions",
        "alibi": "megatron.model.positions.alibi:AlibiPositions",
        "none": "megatron.model.positions.none:NoPositions",
    },
)

ROPE_SCALINGS = Registry(
    "rope scaling",
    {
        "linear": "megatron.neox_arguments.rope_scaling:linear",
        "llama3": "megatron.neox_arguments.rope_scaling:llama3",
        "yarn": "megatron.neox_arguments.rope_scaling:yarn",
    },
)

ALL_HEADS_NORMS = Registry(
    "norm of all heads",
    {
        "layernorm": "megatron.model.norms.all_heads:AllHeadsLayerNorm",
        "rmsnorm": "megatron.model.norms.all_heads:AllHeadsRMSNorm",
    },
)

ACTIVATIONS = Registry(
    "activation",
    {
        "gelu": "megatron.model.activations:gelu",
        "relu": "megatron.model.activations:relu",
        "softsign": "megatron.model.activations:softsign",
        "swish": "megatron.model.activations:silu",
        "silu": "megatron.model.activations:silu",
        "mish": "megatron.model.activations:mish",
        "geglu": "megatron.model.activations:gelu",
        "reglu": "megatron.model.activations:relu",
        "swiglu": "megatron.model.activations:silu",
        "bilinear": "megatron.model.activations:identity",
        "glu": "megatron.model.activations:sigmoid",
    },
)
GATED_ACTIVATIONS = frozenset({"geglu", "reglu", "swiglu", "bilinear", "glu"})

INIT_METHODS = Registry(
    "init method",
    {
        "normal": "megatron.model.init_methods:build_normal",
        "scaled_normal": "megatron.model.init_methods:build_scaled_normal",
        "single_residual_scaled_normal": "megatron.model.init_methods:build_single_residual_scaled_normal",
        "orthogonal": "megatron.model.init_methods:build_orthogonal",
        "scaled_orthogonal": "megatron.model.init_methods:build_scaled_orthogonal",
        "xavier_uniform": "megatron.model.init_methods:build_xavier_uniform",
        "xavier_normal": "megatron.model.init_methods:build_xavier_normal",
        "wang_init": "megatron.model.init_methods:build_wang_init",
        "small_init": "megatron.model.init_methods:build_small_init",
    },
)

OPTIMIZERS = Registry(
    "optimizer",
    {
        "adam": "megatron.optim.adam:build_adam",
        "adamw": "megatron.optim.adam:build_adam",
    },
)

LR_SCHEDULES = Registry(
    "lr decay style",
    {
        "constant": "megatron.optim.lr_schedules:constant",
        "linear": "megatron.optim.lr_schedules:linear",
        "cosine": "megatron.optim.lr_schedules:cosine",
        "exponential": "megatron.optim.lr_schedules:exponential",
    },
)

TOKENIZERS = Registry(
    "tokenizer",
    {
        "GPT2BPETokenizer": "megatron.tokenizer.gpt2_bpe:GPT2BPETokenizer",
        "HFTokenizer": "megatron.tokenizer.hf:HFTokenizer",
        "HFGPT2Tokenizer": "megatron.tokenizer.hf_gpt2:HFGPT2Tokenizer",
        "SPMTokenizer": Entry("megatron.tokenizer.sentencepiece:SPMTokenizer", "requirements-sentencepiece.txt"),
        "TiktokenTokenizer": Entry("megatron.tokenizer.tiktoken:TiktokenTokenizer", "requirements-tiktoken.txt"),
        "CharLevelTokenizer": "megatron.tokenizer.char_level:CharLevelTokenizer",
    },
)

# In order of preference: a model is exported as the first of these that can express it.
FAMILIES = Registry(
    "family of models",
    {
        "neox": "megatron.conversion.families.gpt_neox:FAMILY",
        "llama": "megatron.conversion.families.llama:FAMILY",
        "gpt2": "megatron.conversion.families.gpt2:FAMILY",
        "opt": "megatron.conversion.families.opt:FAMILY",
        "gptj": "megatron.conversion.families.gptj:FAMILY",
        "phi": "megatron.conversion.families.phi:FAMILY",
        "falcon": "megatron.conversion.families.falcon:FAMILY",
        "gpt_bigcode": "megatron.conversion.families.gpt_bigcode:FAMILY",
        "codegen": "megatron.conversion.families.codegen:FAMILY",
        "mistral": "megatron.conversion.families.mistral:FAMILY",
        "qwen2": "megatron.conversion.families.qwen2:FAMILY",
        "qwen3": "megatron.conversion.families.qwen3:FAMILY",
        "olmo2": "megatron.conversion.families.olmo2:FAMILY",
        "phi3": "megatron.conversion.families.phi3:FAMILY",
        "starcoder2": "megatron.conversion.families.starcoder2:FAMILY",
        "stablelm": "megatron.conversion.families.stablelm:FAMILY",
        "olmo": "megatron.conversion.families.olmo:FAMILY",
        "seed_oss": "megatron.conversion.families.seed_oss:FAMILY",
        "ministral": "megatron.conversion.families.ministral:FAMILY",
        "helium": "megatron.conversion.families.helium:FAMILY",
        "glm": "megatron.conversion.families.glm:FAMILY",
        "ernie4_5": "megatron.conversion.families.ernie4_5:FAMILY",
        "mpt": "megatron.conversion.families.mpt:FAMILY",
    },
)

CORPORA = Registry(
    "corpus",
    {
        "python_stdlib": "megatron.data.corpora.python_stdlib:PythonStandardLibrary",
        "enwik8": "megatron.data.corpora.enwik8:Enwik8",
        "wikipedia": "megatron.data.corpora.wikipedia:WIKIPEDIA",
        "openwebtext": "megatron.data.corpora.openwebtext:OPENWEBTEXT",
        "c4": "megatron.data.corpora.c4:C4",
        "c4_openwebtext": "megatron.data.corpora.c4:C4_OPENWEBTEXT",
        "pile": "megatron.data.corpora.pile:PILE",
        "pile_subset": "megatron.data.corpora.pile:PILE_SUBSET",
        "arxiv": "megatron.data.corpora.pile:ARXIV",
        "dm_mathematics": "megatron.data.corpora.pile:DM_MATHEMATICS",
        "enron": "megatron.data.corpora.pile:ENRON",
        "europarl": "megatron.data.corpora.pile:EUROPARL",
        "freelaw": "megatron.data.corpora.pile:FREELAW",
        "github": "megatron.data.corpora.pile:GITHUB",
        "gutenberg": "megatron.data.corpora.pile:GUTENBERG",
        "hackernews": "megatron.data.corpora.pile:HACKERNEWS",
        "nih": "megatron.data.corpora.pile:NIH",
        "philpapers": "megatron.data.corpora.pile:PHILPAPERS",
        "pile_cc": "megatron.data.corpora.pile:PILE_CC",
        "pile_wikipedia": "megatron.data.corpora.pile:WIKIPEDIA_EN",
        "pubmed": "megatron.data.corpora.pile:PUBMED",
        "pubmed_abstracts": "megatron.data.corpora.pile:PUBMED_ABSTRACTS",
        "stackexchange": "megatron.data.corpora.pile:STACKEXCHANGE",
        "ubuntu_irc": "megatron.data.corpora.pile:UBUNTU_IRC",
        "uspto": "megatron.data.corpora.pile:USPTO",
        "books1": "megatron.data.corpora.gone:BOOKS1",
        "books3": "megatron.data.corpora.gone:BOOKS3",
        "openwebtext2": "megatron.data.corpora.gone:OPENWEBTEXT2",
        "youtube_subtitles": "megatron.data.corpora.gone:YOUTUBE_SUBTITLES",
        "proof-pile": "megatron.data.corpora.gone:PROOF_PILE",
        "proof-pile-v1": "megatron.data.corpora.gone:PROOF_PILE_V1",
        "arxiv-pilev2": "megatron.data.corpora.gone:ARXIV_PILEV2",
        "arxiv-rp": "megatron.data.corpora.gone:ARXIV_RP",
        "open-web-math": "megatron.data.corpora.gone:OPEN_WEB_MATH",
        "open-web-math-hq": "megatron.data.corpora.gone:OPEN_WEB_MATH_HQ",
        "pile-sample": "megatron.data.corpora.gone:PILE_SAMPLE",
        "pile-sample-1": "megatron.data.corpora.gone:PILE_SAMPLE_1",
        "pile-sample-2": "megatron.data.corpora.gone:PILE_SAMPLE_2",
        "code-no-matlab": "megatron.data.corpora.gone:CODE_NO_MATLAB",
    },
)

LAUNCHERS = Registry(
    "launcher",
    {
        "local": "megatron.launcher.launchers.local:LocalLauncher",
        "pdsh": "megatron.launcher.launchers.pdsh:PdshLauncher",
        "openmpi": "megatron.launcher.launchers.openmpi:OpenMPILauncher",
        "mpich": "megatron.launcher.launchers.mpich:MPICHLauncher",
        "impi": "megatron.launcher.launchers.impi:IntelMPILauncher",
        "mvapich": "megatron.launcher.launchers.mvapich:MVAPICHLauncher",
        "slurm": "megatron.launcher.launchers.slurm:SlurmLauncher",
        "jsrun": "megatron.launcher.launchers.jsrun:JsrunLauncher",
        "torchrun": "megatron.launcher.launchers.torchrun:TorchrunLauncher",
    },
)

COMMANDS = Registry(
    "command of deepy.py",
    {
        "run": "megatron.cli.run:main",
        "check": "megatron.cli.check:main",
        "explain": "megatron.cli.explain:main",
        "plan": "megatron.cli.plan:main",
        "parity": "megatron.cli.parity:main",
        "doctor": "megatron.cli.doctor:main",
    },
)

OBJECTIVES = Registry(
    "training objective",
    {
        "normal": "megatron.training.objectives.next_token:NextTokenObjective",
    },
)

WRITERS = Registry(
    "metric writer",
    {
        "jsonl": "megatron.monitor.writers.jsonl:JsonlWriter",
        "tensorboard": Entry("megatron.monitor.writers.tensorboard:TensorBoardWriter", "requirements-tensorboard.txt"),
        "wandb": Entry("megatron.monitor.writers.wandb:WandbWriter", "requirements-wandb.txt"),
        "comet": Entry("megatron.monitor.writers.comet:CometWriter", "requirements-comet.txt"),
    },
)


@dataclass(frozen=True)
class Store:
    """What the URLs of a store need: the package that fsspec reaches it by, and the file of `requirements/` that has it."""

    package: str
    requirement: str


_S3 = Store("s3fs", "requirements-s3.txt")
_GCS = Store("gcsfs", "requirements-gcs.txt")

STORES = {"s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS}
"""Where checkpoints may lie, by the protocol of the URL. fsspec knows further stores, whose packages are the user's to find."""
