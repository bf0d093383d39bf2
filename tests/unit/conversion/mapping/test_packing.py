"""Packings: nothing is lost or doubled, the way back is exact, and each cut puts rows where the other program reads them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from megatron.conversion.families.codegen import in_four_parts
from megatron.conversion.mapping import packing
from megatron.conversion.mapping.packing import Cut, Heads, build_packing

# Heads that all cuts can divide; rotated channels are fewer than a head has.
MANY, GROUPED, ONE = Heads(8, 8, 6, rotated=4), Heads(8, 4, 6, rotated=4), Heads(4, 1, 6, rotated=6)
ANY_HEADS: tuple[Cut, ...] = (
    packing.whole,
    packing.separate_heads,
    packing.fused_heads,
    packing.heads_by_group,
    packing.separate_interleaved_heads,
    packing.gate_and_up,
    packing.fused_gate_and_up,
)
CASES = [(cut, heads) for cut in ANY_HEADS for heads in (MANY, GROUPED, ONE)] + [(in_four_parts, MANY)]


def rows_of(heads: Heads) -> int:
    return (heads.query + 2 * heads.key_value) * heads.width


@pytest.mark.parametrize("transposed", [False, True], ids=["", "transposed"])
@pytest.mark.parametrize(("cut", "heads"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_way_back_is_exact(cut: Cut, heads: Heads, transposed: bool) -> None:
    built = build_packing(cut, rows_of(heads), heads, transposed=transposed)
    for shape in ((rows_of(heads), 5), (rows_of(heads),)):
        ours = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
        theirs = built.unpack(ours)
        assert built.shapes(shape) == tuple(tuple(tensor.shape) for tensor in theirs)
        assert torch.equal(built.pack(theirs), ours)


def labelled(heads: Heads) -> tuple[list[str], Callable[[Tensor], str]]:
    """Our rows by name (`q2.5`: channel 5 of query head 2), and how rows of theirs are spelt by those names."""
    if heads.query == heads.key_value:
        order = [f"{kind}{head}" for head in range(heads.query) for kind in "qkv"]
    else:
        numbers = {"q": heads.query, "k": heads.key_value, "v": heads.key_value}
        order = [f"{kind}{head}" for kind, number in numbers.items() for head in range(number)]
    names = [f"{head}.{channel}" for head in order for channel in range(heads.width)]
    return names, lambda rows: " ".join(names[row] for row in rows.tolist())


def heads_in_order(rows: str) -> str:
    """The heads alone, each once."""
    return " ".join(dict.fromkeys(row.split(".")[0] for row in rows.split()))


@pytest.mark.parametrize(
    ("cut", "heads", "theirs"),
    [
        (packing.separate_heads, Heads(2, 2, 2), ["q0 q1", "k0 k1", "v0 v1"]),
        (packing.separate_heads, Heads(4, 2, 2), ["q0 q1 q2 q3", "k0 k1", "v0 v1"]),
        (packing.fused_heads, Heads(2, 2, 2), ["q0 q1 k0 k1 v0 v1"]),
        (packing.heads_by_group, Heads(4, 2, 2), ["q0 q1 k0 v0 q2 q3 k1 v1"]),
        (packing.heads_by_group, Heads(3, 1, 2), ["q0 q1 q2 k0 v0"]),
        (packing.heads_by_group, Heads(2, 2, 2), ["q0 k0 v0 q1 k1 v1"]),
        (in_four_parts, Heads(4, 4, 2, rotated=2), ["q0 v0 k0 q1 v1 k1 q2 v2 k2 q3 v3 k3"]),
        (
            in_four_parts,
            Heads(8, 8, 2, rotated=2),
            ["q0 q1 v0 v1 k0 k1 q2 q3 v2 v3 k2 k3 q4 q5 v4 v5 k4 k5 q6 q7 v6 v7 k6 k7"],
        ),
    ],
)
def test_heads_stand_where_the_other_program_reads_them(cut: Cut, heads: Heads, theirs: list[str]) -> None:
    names, spell = labelled(heads)
    built = build_packing(cut, len(names), heads)
    assert [heads_in_order(spell(rows)) for rows in built.parts] == theirs


def test_neighbouring_channels_are_those_that_ours_turn_together() -> None:
    """Ours turn channel 0 with 2 and 1 with 3 of four; the other two rest, and so do values."""
    heads = Heads(2, 1, 6, rotated=4)
    _, spell = labelled(heads)
    query, key, value = build_packing(packing.separate_interleaved_heads, rows_of(heads), heads).parts
    assert spell(query) == "q0.0 q0.2 q0.1 q0.3 q0.4 q0.5 q1.0 q1.2 q1.1 q1.3 q1.4 q1.5"
    assert spell(key) == "k0.0 k0.2 k0.1 k0.3 k0.4 k0.5"
    assert spell(value) == "v0.0 v0.1 v0.2 v0.3 v0.4 v0.5"


def test_of_a_gated_projection_the_gate_comes_first() -> None:
    heads = Heads(1, 1, 1)
    assert [rows.tolist() for rows in build_packing(packing.gate_and_up, 4, heads).parts] == [[2, 3], [0, 1]]
    assert [rows.tolist() for rows in build_packing(packing.fused_gate_and_up, 4, heads).parts] == [[2, 3, 0, 1]]


def test_rows_that_stay_together_are_not_copied() -> None:
    ours = torch.zeros(rows_of(GROUPED), 3)
    for part in build_packing(packing.separate_heads, len(ours), GROUPED).unpack(ours):
        assert part.untyped_storage().data_ptr() == ours.untyped_storage().data_ptr()


def test_another_number_of_rows_is_refused() -> None:
    built = build_packing(packing.separate_heads, rows_of(GROUPED), GROUPED)
    query, key, value = built.unpack(torch.zeros(rows_of(GROUPED), 3))
    with pytest.raises(ValueError, match=r"\[48, 24, 48\] rows where \[48, 24, 24\] belong"):
        built.pack([query, key, query])
    assert built.pack([query, key, value]).shape == (96, 3)


@pytest.mark.parametrize("order", [[0, 1, 1, 3], [0, 1, 2], [0, 1, 2, 4]])
def test_a_cut_that_loses_or_repeats_rows_is_found_out(order: list[int]) -> None:
    def wrong(rows: torch.Tensor, heads: Heads) -> tuple[torch.Tensor, ...]:
        return (torch.tensor(order),)

    with pytest.raises(AssertionError, match="wrong does not place every row once"):
        build_packing(wrong, 4, Heads(1, 1, 4))
