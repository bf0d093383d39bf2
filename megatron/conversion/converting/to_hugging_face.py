"""A model of ours as a directory of Hugging Face transformers, which is there only if that library computes the same with it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from megatron.checkpointing.layout import iteration_of
from megatron.checkpointing.names import dtype_name
from megatron.conversion.converting.report import Conversion, source_facts, write_report
from megatron.conversion.export.check import check_exported
from megatron.conversion.export.config import SpecialTokens, write_configs
from megatron.conversion.export.place import directory_to_be, holds_model, output_directory
from megatron.conversion.export.tokenizer import chat_template, check_entries, copy_files, write_tokenizer
from megatron.conversion.export.weights import SHARD_BYTES, export_weights, stored_dtype
from megatron.conversion.legacy.source import NeoXSource
from megatron.conversion.mapping.choose import AUTO, family_for
from megatron.conversion.meta_llama.source import MetaLlamaSource
from megatron.conversion.opening import OpenedModel
from megatron.conversion.proving.proof import Proof, prove
from megatron.conversion.proving.theirs import import_transformers
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.conversion.reading.own_checkpoint import OwnCheckpoint
from megatron.errors import NeoXError
from megatron.model.spec import DTYPES
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Dtypes of files, as the command line calls them."""

_AS_WE_READ_IT = (
    "both programs have the weights as they were read of files of GPT-NeoX or of Meta, so their agreement does not show that every tensor of "
    "those files is in its place"
)


def to_hugging_face(
    opened: OpenedModel,
    output: str | Path,
    *,
    wanted: str = AUTO,
    precision: str = AUTO,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
) -> Conversion:
    """Write `opened` to the directory `output` and prove that it computes the same; without proof there is a report of it and nothing else,
    or beside `output` where an earlier model is, which stays.

    wanted: a family of the menu, or the first that can express the model; precision: of PRECISIONS, or "auto", that of the training, else the
    one that is stored; shard_bytes: of one file. Whatever raises leaves nothing: CheckpointError when no family can express the model, the
    tensors do not fit its settings, values do not fit the dtype, or `output` holds something; MissingRequirement without transformers.
    """
    import_transformers()
    directory = output_directory(output, overwrite=overwrite, source=opened.directory)
    family = family_for(opened.architecture, wanted)
    dtype = _dtype(opened, precision)
    tokenizer, remarks = _tokenizer(opened)
    architecture = opened.architecture
    with directory_to_be(directory) as place:
        begun = time.perf_counter()
        tokens = SpecialTokens()
        if tokenizer is not None and opened.saved_args is not None:
            tokens, remark = write_tokenizer(
                tokenizer,
                place,
                longest=architecture.max_position_embeddings,
                is_reward_model=architecture.train_impl == "rm",
                template=chat_template(opened.saved_args.vocab_file),
            )
            remarks += [remark] if remark else []
        elif isinstance(opened.source, HuggingFaceSource):
            tokens = SpecialTokens.of(opened.source.config)
            remarks += copy_files(opened.directory, place)
        name = write_configs(place, architecture, family, dtype=dtype, tokens=tokens)
        size = export_weights(opened.source, architecture, family, place, dtype=dtype, shard_bytes=shard_bytes)
        check_exported(place, architecture, dtype=dtype)
        written = time.perf_counter()
        proof = _proof_of_reading(opened) or prove(opened, place, dtype=dtype, tokenizer=tokenizer)
        conversion = Conversion(
            source=source_facts(opened.description, opened.directory, _iteration(opened), opened.source.shapes),
            settings=architecture,
            family=family.name,
            architecture=name,
            dtype=dtype_name(dtype),
            size=size,
            seconds=(written - begun, time.perf_counter() - written),
            proof=proof,
            remarks=(*remarks, *_not_shown(opened)),
            earlier=holds_model(directory),
        )
        if not conversion.equal:
            for path in place.iterdir():
                path.unlink()
        write_report(place, conversion)
    return conversion


def _proof_of_reading(opened: OpenedModel) -> Proof | None:
    """Why a model of transformers is another one as we read it, which the export would be as well; None when it is the same."""
    if not isinstance(opened.source, HuggingFaceSource):
        return None
    proof = prove(opened, opened.directory)
    return None if proof.equal else replace(proof, problem=f"it is not read as it should be: {proof.problem}")


def _not_shown(opened: OpenedModel) -> list[str]:
    return [_AS_WE_READ_IT] if isinstance(opened.source, NeoXSource | MetaLlamaSource) else []


def _dtype(opened: OpenedModel, precision: str) -> torch.dtype:
    if precision != AUTO:
        return PRECISIONS[precision]
    if opened.saved_args is not None:
        return DTYPES[opened.saved_args.precision]
    stored = stored_dtype(opened.source)
    return stored if stored in PRECISIONS.values() else torch.float32


def _tokenizer(opened: OpenedModel) -> tuple[Tokenizer | None, list[str]]:
    """The tokenizer of the run, and why there is none. Raises CheckpointError for one that cannot be this model's."""
    if opened.saved_args is None:
        if isinstance(opened.source, HuggingFaceSource):
            return None, []
        return None, ["no tokenizer files were written: the model does not say which tokenizer is its own"]
    try:
        tokenizer = build_tokenizer(opened.saved_args)
    except NeoXError as error:  # it lies elsewhere, say
        return None, [f"no tokenizer files were written, and no texts compared: {error}"]
    check_entries(tokenizer, opened.architecture.vocab_size)
    return tokenizer, []


def _iteration(opened: OpenedModel) -> int | None:
    return iteration_of(opened.directory) if isinstance(opened.source, OwnCheckpoint) else None
