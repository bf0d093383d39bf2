"""The architecture: sizes, attention, norms, positions, MLP, initialisation, and switches of alternative implementations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from megatron.components import ACTIVATIONS, GATED_ACTIVATIONS, INIT_METHODS, NORMS, POSITIONS
from megatron.neox_arguments.derive import derive_mlp_width
from megatron.neox_arguments.keys.planned import PLANNED
from megatron.neox_arguments.keys.types import (
    DERIVED,
    AttentionTypes,
    ComponentName,
    Group,
    Integer,
    Number,
    Section,
    WholeIfPossible,
)

InitMethod = Annotated[str, ComponentName(INIT_METHODS)]


class ModelArgs(Group):
    """Everything that determines the parameters of the model and what it computes."""

    precision: Literal["fp16", "fp32", "bfloat16"] = Field(DERIVED)
    """Number format of weights and activations while training; the optimizer always keeps fp32 copies. bfloat16 needs no loss scaling.
    Default: what `fp16.enabled` or `bf16.enabled` say, else fp32."""

    fp8: Literal["none", "tensorwise", "rowwise"] = "none"
    """Multiply in 8-bit floating point in the linear layers of the blocks (not embedding, norms, attention's core or output layer). NVIDIA GPUs
    of compute capability 8.9 or more (Ada, Hopper, Blackwell) compute these products up to twice as fast as in bfloat16; rounding takes some of
    that back, the less the wider the layers, and least with compile. Inputs and weights are rounded to e4m3, gradients as fp8_format says, each
    operand scaled to the range by its largest value: `tensorwise` by one scale (fastest), `rowwise` by one for each vector that is summed over
    (more exact where a few values are large). Sums are fp32, of the forward pass with the fewer bits that Hopper is faster with; weights,
    gradients and optimizer stay as they are, and so do checkpoints. Scales are powers of two, and nothing is exchanged about them: layouts
    differ by the order of sums and the very smallest values. A CPU gives the same numbers, slower. Generation and conversion compute without
    it. Needs precision bfloat16, and widths that are multiples of 16 on each tensor rank."""

    fp8_format: Literal["hybrid", "e4m3"] = "hybrid"
    """Type of gradients in the products of fp8: hybrid takes e5m2, which has range; e4m3 is more exact, and better with rowwise than with
    tensorwise."""

    fp8_wgrad: bool = True
    """Whether fp8 computes gradients of weights, one product in three, in 8 bits, too; otherwise in bfloat16."""

    num_layers: Integer = Field(DERIVED, ge=1, le=100_000)
    """Number of transformer blocks."""

    hidden_size: Integer = Field(DERIVED, ge=1)
    """Width of the residual stream. Must be a multiple of num_attention_heads unless head_dim is given."""

    intermediate_size: Integer | None = Field(None, ge=1)
    """Width of the MLP before rounding to mlp_multiple_of; with a gated activation two thirds of it is used for each half (Llama-7B is
    written as 32768 and gives 11008). Default: expansion_factor * hidden_size, else 4 * hidden_size."""

    mlp_multiple_of: Integer = Field(1, ge=1)
    """The MLP width is rounded up to a multiple of this."""

    expansion_factor: Number | None = Field(None, gt=0, le=1000)
    """MLP width as a multiple of hidden_size; another way to write intermediate_size."""

    num_attention_heads: Integer = Field(DERIVED, ge=1)
    """Attention heads, each of head_dim channels."""

    head_dim: Integer = Field(DERIVED, ge=1)
    """Channels of an attention head. Heads may together be wider or narrower than the residual stream: Qwen3-0.6B has 16 heads of 128
    channels on a width of 1024. Default: hidden_size / num_attention_heads."""

    num_kv_heads: Integer = Field(DERIVED, ge=1)
    """Key/value heads, each shared by num_attention_heads / num_kv_heads query heads (grouped-query attention; 1 is multi-query).
    Smaller values shrink the cache of generation. Default: num_attention_heads."""

    seq_length: Integer = Field(DERIVED, ge=1)
    """Tokens in a training sample."""

    sliding_window_width: Integer | None = Field(None, ge=1)
    """Each token attends to this many latest tokens, itself included, as in Hugging Face (existing GPT-NeoX keeps one more). Mistral-7B
    has 4096. Default: all earlier tokens."""

    max_position_embeddings: Integer = Field(DERIVED, ge=1)
    """Longest sequence positions are made for; with learned positions, the rows of their table. Default: seq_length."""

    norm: Annotated[str, ComponentName(NORMS)] = "layernorm"
    """Normalisation before attention, before the MLP and at the end. rmsnorm leaves the mean in; non_parametric_layernorm has no weights;
    scalenorm has a single one."""

    layernorm_fusion: bool = False
    """Compute layernorm and non_parametric_layernorm by a kernel: one pass over memory forward, and one backward, which sums the gradients of
    weight and bias as well. A CPU has plain torch, with the numbers of false."""

    rmsnorm_fusion: bool = False
    """Compute rmsnorm by a kernel: one pass over memory forward, and one backward, which sums the gradient of the scale as well. A CPU has
    plain torch, with the numbers of false."""

    use_qk_layernorm: bool = False
    """Normalise queries and keys with `norm` before they are rotated, each with weights of their own, which keeps large models from
    diverging. Existing GPT-NeoX shares one set of weights between the two, over the heads of a tensor rank."""

    qk_layernorm_scope: Literal["head", "all_heads"] = "head"
    """What use_qk_layernorm normalises together: the channels of each `head`, with weights that the heads share (Qwen3), or the whole
    width of `all_heads` (OLMo-2), with rmsnorm or layernorm only."""

    norm_position: Literal["pre", "post"] = "pre"
    """Where a block normalises: `pre`, what attention and MLP read; `post`, what they give, before it is added to the residual stream
    (OLMo-2)."""

    layernorm_epsilon: Number = Field(1e-5, gt=0)
    """Added to the variance in layernorm and non_parametric_layernorm."""

    rms_norm_epsilon: Number = Field(1e-8, gt=0)
    """Added to the mean square in rmsnorm. Llama uses 1e-5 or 1e-6."""

    scalenorm_epsilon: Number = Field(1e-8, gt=0)
    """Smallest length a vector is divided by in scalenorm."""

    pos_emb: Annotated[str, ComponentName(POSITIONS, PLANNED["pos_emb"])] = "learned"
    """How positions enter: a learned table, rotation of queries and keys (rotary), scores that lose an amount for each token of distance
    (alibi), or not at all (none). Of the attention types, `flash` without the flash-attn package adds alibi as a mask as large as the scores
    of one sequence; on a GPU `flex` needs none."""

    rpe_num_buckets: Integer = Field(32, ge=1)
    """Buckets of distances in relative positions (pos_emb rpe)."""

    rpe_max_distance: Integer = Field(128, ge=1)
    """Distances beyond this share the last bucket (pos_emb rpe)."""

    opt_pos_emb_offset: Integer = Field(0, ge=0)
    """Rows skipped at the head of the learned position table; OPT models have 2."""

    no_weight_tying: bool = False
    """Give the output layer its own weights instead of sharing the embedding's. Tied heads save vocabulary x hidden_size parameters;
    large models untie them."""

    attention_config: AttentionTypes = Field(DERIVED)
    """Attention type of each layer, as a list of `[[types...], repeat]`: `[[["global", "flash"], 6]]` alternates over 12 layers, and
    repeat "all" goes on to num_layers. A plain list of one type a layer is taken as it is. Default: global everywhere. `flash` gives
    the numbers of `global` up to rounding, in less memory; `flex` does so without the mask that `flash` needs on a GPU for windows and for
    documents kept apart (reset_attention_mask) where the flash-attn package is not installed."""

    sdpa_backend: Literal["auto", "flash", "cudnn", "efficient", "math"] = "auto"
    """The kernel of torch's scaled dot product attention that attention types `flash` and `flex` train with: `flash`, `cudnn` (NVIDIA's library;
    worth a try on Hopper), `efficient` (which takes masks and fp32) or `math` (plain products, to compare with). A CPU has `flash` and `math`;
    what a kernel cannot compute is an error. `auto` takes the fastest known: a flash-attn package where one is installed (FlashAttention 3 on
    Hopper); on a CPU, products over blocks of queries for windows, alibi and, in bfloat16, samples of up to 8 head_dim tokens (unless the CPU has
    AMX); else what torch chooses. Measured on a CPU, attention's core forward and backward, `flash` / `auto` in CPU time: 1.7 to 1.9 (bfloat16,
    512 tokens of 64 channels), 3.5 (window of 256 in 2,048 tokens), 1.1 to 1.8 (alibi). Up to those 8 head_dim tokens blocks keep their weights for
    the backward pass, about the memory of queries, keys and values once more. All give the same numbers up to rounding."""

    sparsity_config: Section | None = None
    """Block size and pattern of sparse attention types."""

    num_unique_layers: Integer | None = Field(None, ge=1)
    """Number of different blocks when blocks share weights."""

    param_sharing_style: str = "grouped"
    """Order in which shared blocks repeat: `grouped` (1 1 2 2) or `spaced` (1 2 1 2)."""

    activation: Annotated[str, ComponentName(ACTIVATIONS)] = "gelu"
    """Activation of the MLP. geglu, reglu, swiglu, bilinear and glu are gated: the first projection gives an up half and a gate half,
    and the MLP continues with up * act(gate)."""

    use_flashattn_swiglu: bool = False
    """Compute swiglu and geglu by a kernel that reads both halves of the first projection once, forward and backward, with one rounding
    instead of two. A CPU has plain torch, with the numbers of false."""

    scaled_upper_triang_masked_softmax_fusion: bool = False
    """Scale, mask and normalise attention scores by one kernel where a query sees all tokens before it: it reads no mask and half of the scores.
    For attention of type `global` without a window, and for other types while they drop weights (attention_dropout); those need no kernel
    otherwise. A CPU has plain torch, with the numbers of false."""

    scaled_masked_softmax_fusion: bool = False
    """As scaled_upper_triang_masked_softmax_fusion, where a mask says what a query sees: windows, documents that are kept apart
    (reset_attention_mask), generation. Not with pos_emb alibi, which adds to scores."""

    bias_gelu_fusion: bool = False
    """Which GELU is computed: true is the tanh approximation (as the fused kernel of GPT-NeoX and so the Pythia models), false the
    exact erf form. Logits differ by about 1e-3, so keep the value a model was trained with. On a GPU true computes it together with the
    bias before it by a kernel, which also sums the bias's gradient."""

    bias_dropout_fusion: bool = False
    """Add bias, dropout and residual behind attention and MLP by one kernel instead of three operations, with one rounding instead of
    three and the same masks. Pays with biases or hidden_dropout, and most with both. A CPU has plain torch, with the numbers of false up to
    the order of sums."""

    rope_fusion: bool = False
    """Rotate queries and keys by one kernel, where they lie in the output of their projection, instead of some ten operations in fp32. A
    CPU has plain torch, with the numbers of false."""

    fused_kernels_build_path: str | None = None
    """Directory for compiled kernels. Accepted; nothing is compiled when training starts."""

    fp16_lm_cross_entropy: bool = False
    """Compute the loss in fp16 instead of fp32: less memory for the logits, less exact. Only with precision fp16."""

    fused_linear_cross_entropy: bool = True
    """Compute the loss inside the head, chunk by chunk of tokens, so that the logits of a micro-batch are never in memory as a whole: the
    same numbers up to rounding. false computes all logits, then the loss of them. Pays with large vocabularies: of 2048 tokens, hidden size
    512 and vocabulary 50304 in bfloat16 on a CPU, projection and loss take 0.88 of the CPU time and a quarter of the memory; of a small
    vocabulary they take the same time. Where the loss is not that of next tokens, and in fp16, whose gradients need the loss scale,
    it is as false."""

    init_method_std: Number = Field(0.02, gt=0)
    """Standard deviation of the normal initialisations."""

    apply_query_key_layer_scaling: bool = False
    """Divide attention scores by the layer number before the softmax and multiply after it: against overflow in fp16, the same
    numbers otherwise. Implies that the softmax is computed in fp32."""

    use_cpu_initialization: bool = False
    """Create weights on the CPU. Accepted; initial weights depend on parameter name and seed only, so the result is the same."""

    attention_softmax_in_fp32: bool = False
    """Compute the attention softmax in fp32 when the model is in half precision. Accepted; it always is."""

    rotary_pct: Number = Field(1.0, gt=0, le=1)
    """Fraction of each head's channels that are rotated (rotary positions). GPT-NeoX-20B and Pythia use 0.25."""

    rotary_emb_base: WholeIfPossible = Field(10000, ge=1)
    """Base of the rotation wavelengths. Larger bases suit longer contexts: Code Llama 1,000,000, Llama 3 500,000."""

    rope_scaling: Section | None = None
    """How rotations are slowed down for contexts longer than a model was first trained with: {type: linear, factor}, {type: llama3,
    factor, low_freq_factor, high_freq_factor, original_max_position_embeddings} (Llama 3.1 to 3.3), or {type: yarn, factor,
    original_max_position_embeddings} and, where they differ from the usual, beta_fast, beta_slow and attention_factor."""

    rotary_save_freqs_buffer: bool = False
    """Save the table of rotation frequencies in checkpoints. It is recomputed in any case."""

    init_method: InitMethod = "normal"
    """Distribution of initial weights, except those of the projections that write to the residual stream."""

    output_layer_init_method: InitMethod = "scaled_normal"
    """Distribution of initial weights of the projections that write to the residual stream (attention output, MLP output). scaled_normal
    divides the deviation by sqrt(2 * num_layers)."""

    gmlp_attn_dim: Integer = Field(64, ge=1)
    """Width of the small attention inside aMLP blocks."""

    gpt_j_residual: bool = False
    """Compute attention and MLP in parallel from the same residual input, as in GPT-J, GPT-NeoX-20B and Pythia. Existing GPT-NeoX adds
    the output biases once a tensor rank and drops the attention when use_bias_in_mlp is false; here any layout equals one process."""

    gpt_j_tied: bool = False
    """With gpt_j_residual, attention and MLP also share one norm (as in GPT-J) instead of having one each."""

    use_bias_in_norms: bool = True
    """Give LayerNorm a bias."""

    use_bias_in_attn_linear: bool = True
    """Give the attention projections a bias."""

    use_bias_in_attn_output: bool = Field(DERIVED)
    """Give the attention's output projection a bias. Qwen2.5 has biases on queries, keys and values only. Default:
    use_bias_in_attn_linear."""

    use_bias_in_mlp: bool = True
    """Give the MLP projections a bias."""

    use_bias_in_output_layer: bool = False
    """Give the output layer a bias, one number for each entry of the vocabulary, as GPT-J and Phi-2 have it. Only with no_weight_tying."""

    soft_prompt_tuning: Section | None = None
    """Train only a few embeddings put before each sample: {enabled, num_tokens, init_string, init_range}."""

    output_layer_parallelism: Literal["column"] = "column"
    """How the output layer is cut over tensor ranks: along the vocabulary, the only way that remains."""

    dim_att: Integer | None = Field(None, ge=1)
    """RWKV: width of time mixing. Default: hidden_size."""

    head_size: Integer | None = Field(None, ge=1)
    """RWKV: channels of a head."""

    ffn_dim: Integer | None = Field(None, ge=1)
    """RWKV: width of channel mixing."""

    mamba_selective_scan_fusion: bool = False
    """Mamba: use the package's scan kernel."""

    mamba_causal_conv_fusion: bool = False
    """Mamba: use the package's convolution kernel."""

    mamba_inner_func_fusion: bool = False
    """Mamba: use the package's kernel for the whole inner block."""

    mamba_selective_fp32_params: bool = True
    """Mamba: keep A and D in fp32 in half-precision models."""

    mamba_use_bias_in_conv: bool = True
    """Mamba: give the convolution a bias."""

    mamba_use_bias_in_linears: bool = False
    """Mamba: give the projections a bias."""

    te_columnparallel: bool = False
    """NVIDIA's Transformer Engine multiplies, in fp8, in the linear layers that tensor ranks divide by outputs: query, key and value, and the
    first of the MLP. Parameters, checkpoints and what ranks exchange are those without it. Each tensor is scaled by its own largest value.
    Needs a GPU of compute capability 8.9 or more and requirements-transformer-engine.txt; `fp8` needs no package."""

    te_rowparallel: bool = False
    """As te_columnparallel, in the linear layers that tensor ranks divide by inputs: attention's output, and the last of the MLP."""

    te_layernorm_mlp: bool = False
    """As te_columnparallel, in both linear layers of the MLP. Its norm is that of `norm`: te_layernorm and te_rmsnorm are Transformer Engine's."""

    te_mha: bool = False
    """As te_columnparallel, in both linear layers of attention. Between them runs what attention_config says."""

    te_fp8_format: Literal["e4m3", "hybrid"] = "hybrid"
    """Transformer Engine: fp8 format; hybrid uses e5m2 for gradients."""

    te_fp8_wgrad: bool = True
    """Transformer Engine: compute weight gradients in fp8."""

    te_fp8_amax_history_len: Integer = Field(1, ge=1)
    """Transformer Engine: steps whose largest values determine the fp8 scale."""

    te_fp8_amax_compute_algo: str = "most_recent"
    """Transformer Engine: take the `max` of that history or its `most_recent` entry."""

    te_fp8_margin: Integer = 0
    """Transformer Engine: powers of two left free above the largest value."""

    te_fp8_mha: bool = False
    """Transformer Engine: run attention in fp8."""

    use_mup: bool = False
    """Maximal update parametrisation: hyperparameters found on a narrow model carry over to a wide one."""

    coord_check: bool = False
    """muP: record activation sizes over widths instead of training, to check the parametrisation."""

    save_base_shapes: bool = False
    """muP: write the shapes of the base model and stop."""

    base_shapes_file: str | None = None
    """muP: file with the shapes of the base model."""

    mup_init_scale: Number = Field(1.0, gt=0)
    """muP: factor of the initial deviation."""

    mup_attn_temp: Number = Field(1.0, gt=0)
    """muP: temperature of attention scores."""

    mup_output_temp: Number = Field(1.0, gt=0)
    """muP: temperature of the output logits."""

    mup_embedding_mult: Number = Field(1.0, gt=0)
    """muP: factor of the embedding output."""

    mup_rp_embedding_mult: Number = Field(1.0, gt=0)
    """muP: factor of relative position embeddings."""

    mup_width_scale: Integer = Field(2, ge=1)
    """muP: ratio of widths between the base model and the one used to compute its shapes."""

    hidden_dropout: Number = Field(0.0, ge=0, lt=1)
    """Probability that a channel is zeroed after the embedding and before each addition to the residual stream, while training. Masks
    follow from seed, step, sample, layer and position alone: every layout drops the same, and so does a resumed run."""

    attention_dropout: Number = Field(0.0, ge=0, lt=1)
    """Probability that an attention weight is zeroed, while training. Masks are the same in every layout, as those of hidden_dropout. Above
    0 every attention type therefore trains as `global` does, with its time and memory (squares of the sequence), for the kernels of
    `flash` and `flex` draw masks that no other layout could draw: set it to 0 for speed."""

    onnx_safe: bool = False
    """Avoid operations that the ONNX exporter did not know."""

    @property
    def gated_activation(self) -> bool:
        """Whether the MLP's first projection also gives a gate."""
        return self.activation in GATED_ACTIVATIONS

    @property
    def mlp_width(self) -> int:
        """Input width of the MLP's second projection; the first gives twice this when the activation is gated."""
        return derive_mlp_width(
            self.hidden_size,
            intermediate_size=self.intermediate_size,
            expansion_factor=self.expansion_factor,
            multiple_of=self.mlp_multiple_of,
            gated=self.gated_activation,
        )

    @property
    def norm_epsilon(self) -> float:
        """Epsilon of the chosen norm."""
        epsilons = {
            "rmsnorm": self.rms_norm_epsilon,
            "te_rmsnorm": self.rms_norm_epsilon,
            "scalenorm": self.scalenorm_epsilon,
        }
        return epsilons.get(self.norm, self.layernorm_epsilon)
