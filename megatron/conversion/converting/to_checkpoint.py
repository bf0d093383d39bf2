"""A model of another program as a checkpoint of ours, which is there only if Hugging Face transformers computes the same with the original."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from megatron.checkpointing.files import write_durably
from megatron.checkpointing.names import is_weight
from megatron.checkpointing.settings import settings_yaml
from megatron.conversion.converting.report import Conversion, source_facts, write_report
from megatron.conversion.converting.to_checkpoint_config import (
    CONFIG,
    FOLDER,
    CopiedTokenizer,
    check_config_text,
    checkpoint_settings,
    config_text,
    copy_tokenizer,
)
from megatron.conversion.converting.write import write_checkpoint
from megatron.conversion.export.config import SpecialTokens, write_configs
from megatron.conversion.export.place import REPORT, directory_to_be, holds_model, output_directory
from megatron.conversion.export.weights import export_weights, stored_dtype
from megatron.conversion.mapping.choose import family_for
from megatron.conversion.opening import OpenedModel, open_model
from megatron.conversion.proving.proof import Proof, prove
from megatron.conversion.proving.theirs import import_transformers
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.errors import CheckpointError

_PRECISIONS = {torch.float16: "fp16", torch.bfloat16: "bfloat16"}
_VALUE_BYTES = 4
_CONFIGURATION = frozenset({CONFIG, FOLDER})
_OUR_OWN_EXPORT = (
    "the original is no model of transformers: compared was what the checkpoint is exported as, which does not show that the tensors of the "
    "original were put in the right places"
)


def to_checkpoint(opened: OpenedModel, output: str | Path, *, overwrite: bool = False) -> Conversion:
    """Write `opened` as a checkpoint of iteration 0 in the directory `output`, with `config.yml` and tokenizer, and prove that it computes the same.

    What computes something else is not left behind: there is only the report of it. A model that no family of transformers can express is
    kept, unproven, where there was none before. What is not proven never replaces an earlier model, and its report goes beside `output`. Whatever raises leaves nothing: CheckpointError when the model cannot be read, or `output` holds something;
    MissingRequirement without transformers.
    """
    import_transformers()
    final = output_directory(output, overwrite=overwrite, source=opened.directory, begun=_CONFIGURATION)
    with directory_to_be(final) as place:
        begun = time.perf_counter()
        copied = _write_config(opened, place, final)
        _check_unchanged(final, place, overwrite=overwrite)
        settings = checkpoint_settings(
            opened.architecture, copied, precision=_PRECISIONS.get(stored_dtype(opened.source), "fp32")
        )
        write_checkpoint(opened.source, place, config_yaml=settings_yaml(settings))
        written = time.perf_counter()
        proof, family = _prove(opened, open_model(place), copied)
        weights = {name: shape for name, shape in opened.source.shapes.items() if is_weight(name)}
        conversion = Conversion(
            source=source_facts(opened.description, opened.directory, None, weights),
            settings=opened.architecture,
            family=family,
            architecture=proof.architecture,
            dtype="float32",
            size=sum(torch.Size(shape).numel() for shape in weights.values()) * _VALUE_BYTES,
            seconds=(written - begun, time.perf_counter() - written),
            proof=proof,
            remarks=(copied.remark,) if copied.remark else (),
            earlier=holds_model(final) and (bool(family) or (final / REPORT).exists()),
        )
        if not conversion.equal and (family or conversion.earlier):
            _empty(place)
        write_report(place, conversion)
    return conversion


def write_config_only(opened: OpenedModel, output: str | Path, *, overwrite: bool = False) -> CopiedTokenizer:
    """Write `config.yml` and the tokenizer alone. Raises CheckpointError when `output` holds something."""
    final = output_directory(output, overwrite=overwrite, source=opened.directory, begun=_CONFIGURATION)
    if holds_model(final) and not {path.name for path in final.iterdir()} <= _CONFIGURATION:
        raise CheckpointError(
            f"{final} holds a converted model, and not only its configuration: give another directory"
        )
    with directory_to_be(final) as place:
        copied = _write_config(opened, place, final)
        _check_unchanged(final, place, overwrite=overwrite)
    return copied


def _write_config(opened: OpenedModel, place: Path, final: Path) -> CopiedTokenizer:
    copied = copy_tokenizer(opened.directory, place, final=final)
    text = config_text(opened.architecture, copied, description=opened.description, final=final)
    check_config_text(text, opened.architecture, copied)
    write_durably(place / CONFIG, text.encode())
    return copied


def _check_unchanged(final: Path, place: Path, *, overwrite: bool) -> None:
    """Raise CheckpointError when somebody has edited the configuration that was written alone before."""
    before = final / CONFIG
    if before.is_file() and not overwrite and before.read_bytes() != (place / CONFIG).read_bytes():
        raise CheckpointError(
            f"{before} is another one than would be written: give another directory, or --overwrite, which replaces it"
        )


def _prove(original: OpenedModel, ours: OpenedModel, copied: CopiedTokenizer) -> tuple[Proof, str]:
    """The proof, and the family that it was made with, "" where there is none: then nothing could be compared."""
    if isinstance(original.source, HuggingFaceSource):
        return prove(ours, original.directory, tokenizer=copied.tokenizer), original.source.family.name
    try:
        family = family_for(ours.architecture)
    except CheckpointError as error:
        return Proof("", "", (), problem=f"it is not proven to compute the same: {error}"), ""
    with _temporary_directory() as exported:
        write_configs(exported, ours.architecture, family, dtype=torch.float32, tokens=SpecialTokens())
        export_weights(ours.source, ours.architecture, family, exported, dtype=torch.float32)
        proof = prove(ours, exported, tokenizer=copied.tokenizer)
    return replace(proof, remarks=(*proof.remarks, _OUR_OWN_EXPORT)), family.name


@contextlib.contextmanager
def _temporary_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
