"""Families that are well known and cannot be expressed here, by the `model_type` of their `config.json`, with what they do that ours do not."""

from __future__ import annotations

_EXPERTS = "its MLPs are mixtures of experts, which are not built here"
_LATENT = "its attention keeps compressed keys and values (multi-head latent attention), which is not built here"
_EMBEDDING_NORM = "it normalises its embeddings before the first block, which is not built here"
_RECURRENT = "some of its layers are state-space models, recurrences or convolutions, and only attention is built here"
_GEMMA = "its norms multiply by 1 + weight and its embeddings are multiplied by the root of their width, which is not built here"
_SOFT_CAPS = "it has norms both before and behind attention and MLP and caps scores and logits softly"
_ALTERNATING = "layers with and without a sliding window alternate, and here all layers are alike"
_SOME_POSITIONS = "some of its layers have rotary positions and others have none, and here all layers are alike"
_MULTIPLIERS = "it multiplies embeddings, residuals, scores and logits by constants, which is not built here"
_RELU_SQUARED = "the activation of its MLPs is the square of a ReLU, which is not built here"
_NO_DECODER = "it reads text in both directions or has an encoder beside its decoder, and only decoders are built here"

_TYPES = {
    _EXPERTS: (
        *(
            "mixtral",
            "dbrx",
            "olmoe",
            "flex_olmo",
            "phimoe",
            "qwen2_moe",
            "qwen3_moe",
            "granitemoe",
            "jetmoe",
            "gpt_oss",
        ),
        *("dots1", "ernie4_5_moe", "glm4_moe", "hunyuan_v1_moe", "llama4", "llama4_text", "minimax"),
    ),
    f"{_LATENT}; {_EXPERTS}": ("deepseek_v2", "deepseek_v3"),
    _LATENT: ("minicpm3",),
    _EMBEDDING_NORM: ("bloom",),
    _RECURRENT: (
        *("mamba", "mamba2", "falcon_mamba", "rwkv", "recurrent_gemma", "jamba", "bamba", "zamba", "zamba2", "xlstm"),
        *("lfm2", "nemotron_h", "falcon_h1", "granitemoehybrid", "qwen3_next", "kimi_linear"),
    ),
    _GEMMA: ("gemma",),
    f"{_GEMMA}; {_SOFT_CAPS}; {_ALTERNATING}": ("gemma2",),
    f"{_GEMMA}; {_ALTERNATING}": ("gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4"),
    "its norms subtract the mean but have no bias, and its logits are multiplied by a constant": ("cohere", "cohere2"),
    _MULTIPLIERS: ("granite", "minicpm"),
    _RELU_SQUARED: ("nemotron", "arcee", "persimmon"),
    _SOME_POSITIONS: ("smollm3", "exaone4"),
    "it has norms both before and behind attention and MLP, and here they are in one of the two places": ("glm4",),
    _ALTERNATING: ("olmo3",),
    f"{_ALTERNATING}; its scores are not divided by the root of the head's width": ("gpt_neo",),
    "the activation of its MLPs has learnt parameters (xIELU), which is not built here": ("apertus",),
    "its attention is the difference of two softmaxes, which is not built here": ("diffllama",),
    "its embeddings are multiplied by the root of their width, which is not built here": ("biogpt", "xglm"),
    "its norms are of the residual stream itself, behind what attention and MLP add to it": ("openai-gpt",),
    "its last layer alone has a bias in its attention, and here all layers are alike": ("gpt_neox_japanese",),
    _NO_DECODER: ("bert", "roberta", "deberta", "electra", "modernbert", "t5", "mt5", "umt5", "bart"),
}
REFUSED = {model_type: reason for reason, model_types in _TYPES.items() for model_type in model_types}
