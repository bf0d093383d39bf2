"""A conversion on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from megatron.checkpointing.inspecting.lines import Line, columns, heading, named
from megatron.checkpointing.inspecting.page import size_text
from megatron.conversion.converting.report import Conversion, peak_memory
from megatron.conversion.export.place import report_beside
from megatron.conversion.proving.comparison import PromptComparison


def conversion_lines(conversion: Conversion, directory: str | Path, *, into: str = "") -> Iterator[Line]:
    """Source, target, what was compared and how far apart it was, remarks, and the verdict. into: what was written, if no model of transformers."""
    source = conversion.source
    yield heading("conversion")
    writing, proving = conversion.seconds
    yield from named(
        [
            ("from", str(source["description"])),
            (
                "to",
                f"{directory}, {into or f'a {conversion.architecture or conversion.family} of Hugging Face transformers'}",
            ),
            (
                "weights",
                f"{source['tensors']:,} tensors, {source['parameters']:,} numbers, {conversion.dtype}: {size_text(conversion.size)}",
            ),
            (
                "took",
                f"{writing:.1f} s to write, {proving:.1f} s to prove; {size_text(peak_memory())} of memory at most",
            ),
        ]
    )
    if conversion.proof.prompts:
        yield []
        yield from _table(conversion)
    for remark in conversion.all_remarks:
        yield [("note: ", "yellow"), (remark, "")]
    yield []
    if conversion.equal:
        said = f"both compute the same, in fp32, with weights in {conversion.dtype}"
        if conversion.proof.rounding is not None:
            said += f", to which rounding them changed outputs by {conversion.proof.rounding:.2g}"
        yield [(said, "green")]
    else:
        verdict = "not converted" if conversion.family else "not compared"
        yield [(f"{verdict}: {conversion.proof.problem}", "red")]
        if conversion.earlier:
            report = report_beside(Path(directory))
            yield [(f"{directory} stays as it was; the report of this conversion is {report}", "")]


def _table(conversion: Conversion) -> list[Line]:
    titles = ("prompt", "tokens", "difference", "allowed", "log-likelihood", "greedy")
    rows = [[(title, "bold") for title in titles]]
    for prompt in conversion.proof.prompts:
        style = "" if prompt.equal else "red"
        rows.append(
            [
                (prompt.name, style),
                (f"{prompt.tokens:,}", ""),
                (f"{prompt.difference:.1e}", style),
                (f"{prompt.tolerance:.1e}", ""),
                (f"{prompt.log_likelihoods[1]:.3f}" if prompt.log_likelihoods[1] else "", ""),
                (_greedy(prompt), style),
            ]
        )
    return columns(rows, right=(1, 2, 3, 4))


def _greedy(prompt: PromptComparison) -> str:
    if not prompt.continued:
        return ""
    return f"{prompt.continued} alike" if prompt.parted is None else f"parts at token {prompt.parted + 1}"
