"""What a checkpoint says of itself, as lines: where it is from, what it was trained on, with which settings, and what there is in sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from megatron.checkpointing.inspecting.contents import Contents
from megatron.checkpointing.inspecting.lines import Line, columns, heading, named
from megatron.checkpointing.names import is_weight
from megatron.data.ledger.segments import Ledger, SourceRecord
from megatron.neox_arguments.reading.values import quote
from megatron.text import GIB, MIB, grid, memory, percent, time

NOT_SAID = "not recorded: saved by an older version"


def provenance_lines(contents: Contents, *, now: datetime) -> Iterator[Line]:
    """Who saved what, when and by what."""
    state = contents.state
    yield heading(str(contents.path))
    yield from named(
        [
            ("saved", f"{age(contents.saved_at, now=now)}, by {_world(contents)}"),
            ("iteration", f"{state.iteration:,}"),
            ("counters", _pairs(state.run_state, without="iteration")),
            ("scalars", _pairs(state.scalars)),
            ("versions", _pairs(state.content.get("versions", {}))),
            ("source", source_text(state.content)),
        ]
    )


def data_lines(contents: Contents) -> Iterator[Line]:
    """What the run has read, a line for each stretch of steps and each of its datasets."""
    yield heading("trained on")
    if contents.ledger is None:
        yield [(f"  {contents.ledger_problem or NOT_SAID}", "yellow" if contents.ledger_problem else "")]
        return
    yield from named(list(_segments(contents.ledger)))


def settings_lines(contents: Contents) -> Iterator[Line]:
    """The settings that are not defaults, and where each was written or how it was derived."""
    yield heading("settings that are not defaults")
    if contents.settings is None:
        yield [("  not recorded, or they cannot be read", "yellow")]
        return
    rows = [
        [("", ""), (key, ""), (quote(value, limit=60), "bold"), (contents.origins.get(key, ""), "dim")]
        for key, value in contents.settings.items()
    ]
    yield from columns(rows) if rows else []


def total_lines(contents: Contents, digest: str | None) -> Iterator[Line]:
    """Parameters and bytes of everything. digest: the logical SHA-256 if it was computed."""
    tensors = contents.tensors.values()
    weights = [tensor for tensor in tensors if is_weight(tensor.name)]
    of_weights = sum(tensor.size for tensor in weights)
    yield heading("in sum")
    facts = [
        ("parameters", f"{sum(tensor.elements for tensor in weights):,} in {len(weights):,} tensors"),
        (
            "bytes",
            f"{size_text(contents.value_bytes)}: weights {size_text(of_weights)}, optimizer state {size_text(contents.value_bytes - of_weights)}",
        ),
        ("on disk", f"{size_text(contents.size)}, {percent(max(overhead(contents), 0.0))} more than the values"),
    ]
    yield from named([*facts, ("logical sha", digest)] if digest else facts)


def overhead(contents: Contents) -> float:
    """Bytes on disk beyond those of the values, as a share of the latter."""
    return contents.size / contents.value_bytes - 1 if contents.value_bytes else 0.0


def size_text(size: int) -> str:
    """`37.2 GiB`, `1.5 MiB`; exactly below."""
    if size >= GIB:
        return memory(size)
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size:,} bytes"


def age(moment: datetime | None, *, now: datetime) -> str:
    """`2026-01-31 12:00:00 UTC, 3.0 hours ago`."""
    if moment is None:
        return "at an unknown time"
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, {time(max((now - moment).total_seconds(), 0.0))} ago"


def source_text(content: Mapping[str, Any]) -> str:
    """The commit of the framework's source."""
    if "source" not in content:
        return NOT_SAID
    source = content["source"]
    if source is None:
        return "no git repository"
    return f"commit {source['commit']}" + (" with changes that are not committed" if source["dirty"] else "")


def _world(contents: Contents) -> str:
    size = contents.state.content.get("world_size", "?")
    settings = contents.settings or {}
    parts = [f"{size} process{'' if size == 1 else 'es'}"]
    if contents.ledger is not None:
        topology = contents.ledger.segments[-1].topology
        parts.append(grid(pipe=topology.pipe, data=topology.data, tensor=topology.tensor, context=topology.context))
    stage, precision = settings.get("zero_stage"), settings.get("precision")
    return ", ".join(
        [*parts, *([f"ZeRO stage {stage}"] if stage is not None else []), *([precision] if precision else [])]
    )


def _pairs(values: Mapping[str, Any], *, without: str = "") -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items() if name != without) or "none"


def _value(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"({len(value)} values)"
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else value
        if isinstance(value, str)
        else quote(value)
    )


def _segments(ledger: Ledger) -> Iterator[tuple[str, str]]:
    for segment, steps in ledger.stretches():
        made = range(steps.start, min(steps.stop, ledger.iteration))
        name = f"steps {made.start + 1:,} to {made.stop:,}" if made else f"from step {steps.start + 1:,} on"
        keys = segment.keys
        yield name, f"sequences of {keys.seq_length:,}, {keys.pack_impl}, seed {keys.seed}"
        yield from (("", _source(source)) for source in segment.sources)


def _source(source: SourceRecord) -> str:
    reached = source.reached
    return f"{source.files.path}: {reached.samples:,} samples, {reached.tokens:,} tokens, {reached.epochs:.4g} epochs"
