"""The run: batch sizes, length, data, evaluation, and recomputation of activations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer, Number, Texts

BatchRamp = tuple[Annotated[Integer, Field(ge=1)], Annotated[Integer, Field(ge=1)], Annotated[Integer, Field(ge=0)]]


class TrainingArgs(Group):
    """What is trained on, how much of it at a time, and for how long."""

    train_batch_size: Integer = Field(DERIVED, ge=1)
    """Samples in an optimizer step over all processes: train_micro_batch_size_per_gpu * gradient_accumulation_steps * data-parallel
    size. Larger batches have less noisy gradients and keep more devices busy, and see more data in the same number of steps. Default:
    what the other two batch keys give."""

    train_micro_batch_size_per_gpu: Integer = Field(DERIVED, ge=1)
    """Samples in one forward and backward pass of one process (together with its tensor and pipeline partners). Larger is faster
    until activations fill the memory; while train_batch_size stays, it changes only the rounding. Default: what train_batch_size and
    gradient_accumulation_steps leave."""

    gradient_accumulation_steps: Integer = Field(DERIVED, ge=1)
    """Forward and backward passes whose gradients are summed before an optimizer step: a larger batch in the same memory, one after
    the other. With a pipeline, also the number of micro-batches in flight: use at least 4 times the stages. Default: what the batch
    sizes give, else 1."""

    rampup_batch_size: BatchRamp | None = None
    """Batches that grow: [first batch, increment, samples]. The first step takes the first batch; within that many samples, evenly, the
    batch grows by increments to train_batch_size. Early steps learn little from large batches, so a ramp saves samples. Each batch is a
    multiple of the micro-batch x data-parallel size, as it grows by accumulation; evaluation takes train_batch_size throughout.
    Default: no ramp."""

    batch_size: Integer | None = Field(None, ge=1)
    """Older spelling of train_micro_batch_size_per_gpu."""

    train_iters: Integer | None = Field(None, ge=1)
    """Optimizer steps to train for. Either this or train_epochs must be given."""

    train_epochs: Integer | None = Field(None, ge=1)
    """Passes over the training data; turned into train_iters when the size of the data is known."""

    seed: Integer = Field(1234, ge=0)
    """Seed of initial weights, data order and dropout. The same seed gives the same run in every parallel layout."""

    data_path: str | None = None
    """Prefix of one tokenised dataset (`PREFIX.bin`, `PREFIX.idx`), divided into train, validation and test by `split`."""

    train_data_paths: Texts | None = None
    """Prefixes of tokenised datasets to train on, mixed by train_data_weights. Needs valid_data_paths and test_data_paths as well."""

    valid_data_paths: Texts | None = None
    """Prefixes of the datasets of the evaluations while training; [] evaluates on none."""

    test_data_paths: Texts | None = None
    """Prefixes of the datasets of the evaluation after training; [] evaluates on none."""

    train_data_weights: tuple[Number, ...] | None = None
    """Relative frequency of samples from each of train_data_paths; normalised. Default: equal."""

    valid_data_weights: tuple[Number, ...] | None = None
    """Relative frequencies for valid_data_paths. Default: equal."""

    test_data_weights: tuple[Number, ...] | None = None
    """Relative frequencies for test_data_paths. Default: equal."""

    validation_sets: dict[str, Any] | None = None
    """Further sets to evaluate on while training, each under its own name: {code: {paths: [...]}, wiki: {paths: [...], weights: [...]}}.
    `paths` are prefixes of tokenised datasets, read whole; `weights` their relative frequencies, default equal; `label_paths` their label
    data. They are reported as validation/NAME, beside the set of valid_data_paths or split, which is called validation."""

    weight_by_num_documents: bool = False
    """Derive the weights from the number of documents in each dataset instead; see weighted_sampler_alpha."""

    weighted_sampler_alpha: Number = Field(1.0, ge=0)
    """Exponent a of the documents' share with weight_by_num_documents: p_i = (n_i / n)^a, weights p_i * (1 - n_i / n), both normalised. Below
    1 lifts small datasets; 0 makes all equal."""

    split: str = "969, 30, 1"
    """Shares of train, validation and test documents of data_path, in file order."""

    data_impl: Literal["infer", "mmap", "cached"] = "infer"
    """Format of the tokenised files. All existing ones are `mmap`; `infer` looks at the file."""

    pack_impl: Literal["packed", "pack_until_overflow", "unpacked"] = "packed"
    """How documents become samples: `packed` cuts the endless stream of documents into pieces, `pack_until_overflow` puts whole documents
    together until the next does not fit, `unpacked` gives each document a sample of its own, in file order. The last two fill up with
    padding, which costs compute but takes no loss, and cut what is longer than a sample (see allow_chopped). They shuffle all samples that
    a run asks for, so another train_iters gives another order; a run that is resumed keeps the one it began with."""

    mmap_warmup: bool = False
    """Read every data file once before training so that it lies in the page cache: a slower start, and no waiting for a slow disk
    where host memory holds the data."""

    use_shared_fs: bool = True
    """Whether all machines see the same data directory: one process of the run then builds the index caches beside the data. If not,
    one process a machine does."""

    num_workers: Integer = Field(2, ge=0)
    """Processes that prepare batches beside each process that reads data; 0 reads in the training process."""

    short_seq_prob: Number = Field(0.1, ge=0, le=1)
    """Share of shortened samples in masked-language-model data; GPT data never shortens."""

    eod_mask_loss: bool = False
    """Take no loss on predicting what follows an end-of-document token."""

    reset_position_ids: bool = False
    """Count positions from 0 again behind each end-of-document token, as if the next document stood alone."""

    reset_attention_mask: bool = False
    """Let a token see earlier tokens of its own document only. A document ends with an end-of-document token, so the data needs them
    (`--append-eod`). With reset_position_ids and eod_mask_loss, training on packed documents is training on each alone. `flash` attention
    gets faster the shorter the documents are; on a GPU that takes the flash-attn package. Without it, and in `global` attention, a mask
    of seq_length x seq_length is kept for each sample of a micro-batch."""

    eval_interval: Integer = Field(1000, ge=0)
    """Iterations between two evaluations on the validation data; 0 evaluates after training only."""

    eval_iters: Integer = Field(100, ge=0)
    """Batches of an evaluation, of train_batch_size samples each; 0 never evaluates. Each costs about a third of a training step; more
    give a less noisy loss. Beyond its end a set is read again."""

    char_level_ppl: bool = False
    """Also report perplexity per character (`char_perplexity`) of validation and test data: e to the power of the summed loss divided by
    the characters that the predicted tokens stand for, which makes tokenizers comparable. The end of a document counts as one character. The
    first evaluation on a set takes longer, as it turns its tokens into text."""

    exit_interval: Integer | None = Field(None, ge=1)
    """Save and stop at each multiple of this iteration number, with exit status 0. For queues with a time limit, exit_duration_minutes knows
    the time. Default: never."""

    exit_duration_minutes: Number | None = Field(None, gt=0)
    """Save and stop, with exit status 75, before the first step that begins this many minutes after the start of the job (Megatron's
    exit_duration_in_mins). Loading and restarts count, the save itself comes on top: stay below the limit of the queue by a step and a
    save. The next job has its own minutes. Default: never."""

    do_train: bool | None = None
    """Whether there is something to train. Set while running."""

    do_valid: bool | None = None
    """Whether there is something to validate. Set while running."""

    do_test: bool | None = None
    """Whether there is something to test. Set while running."""

    checkpoint_activations: bool = False
    """Keep only the inputs of every checkpoint_num_layers blocks and compute the rest again in the backward pass: about a third more
    compute, activation memory divided by the number of layers. recompute_granularity asks for less of both."""

    recompute_granularity: Literal["full", "selective"] = "full"
    """What checkpoint_activations computes again: `full` whole blocks; `selective` the scores, softmax and dropout of attention alone,
    which are most of the memory of long sequences and a few percent of the compute (Korthikanti et al. 2022). Attention that never
    writes its scores (flash, flex without dropout) keeps none: there selective changes nothing."""

    checkpoint_num_layers: Integer = Field(1, ge=1)
    """Blocks recomputed together. 1 recomputes one block at a time and is usually best. Of no use with selective recomputation."""

    deepspeed_activation_checkpointing: bool = True
    """Whose recomputation is used. Accepted; it is torch's non-reentrant one in every mode, with the same numbers."""

    partition_activations: bool = False
    """Divide the kept inputs of recomputed blocks over the tensor ranks, and gather them before each is computed again. With
    sequence_parallel they are divided without it, and more besides."""

    contiguous_checkpointing: bool = False
    """Keep activations in one preallocated buffer, against fragmented memory; torch's allocator has expandable segments against that."""

    checkpoint_in_cpu: bool = False
    """Keep the inputs of recomputed blocks in host memory (page-locked): room on the device, at the price of a transfer each way."""

    compile: bool = False
    """Compile the blocks with torch (torch.compile) for training: what is before the core of attention and what is behind it become one
    graph each, shared by all layers of a kind; the core, evaluation and generation stay as they are. The same numbers up to rounding.
    What it is worth depends on device and model (tools/benchmark/techniques.py measures it): try it on yours. For long runs: compiling
    takes half a minute or more, less where the graphs are in the cache (TORCHINDUCTOR_CACHE_DIR). When sequences change their length
    (curriculum_learning), two more graphs serve all lengths. A CPU needs g++, a GPU triton. Not with ZeRO 3 or the te_* keys. CUDA
    graphs are not recorded: they own the memory of their results, which recomputation and accumulation hold on to."""

    synchronize_each_layer: bool = False
    """Wait for the GPU after each recomputed layer. Accepted without effect: it only slows down."""

    profile_backward: bool = False
    """Time forward and backward of each recomputed layer."""
