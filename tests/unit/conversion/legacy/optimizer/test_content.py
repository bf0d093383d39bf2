"""What DeepSpeed's optimizers write, form by form: runs of every kind, counts of steps, and where parameters lie in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron.conversion.legacy.optimizer.content import read_content
from megatron.conversion.legacy.optimizer.order import Slot, derived_slots, layer_name, written_slots
from megatron.conversion.legacy.optimizer.vector import Vector


def moments(begin: float, shape: tuple[int, ...], **further: Any) -> dict[str, Any]:
    return {"exp_avg": torch.full(shape, begin), "exp_avg_sq": torch.full(shape, begin + 0.5), **further}


def by_number(*states: dict[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    return {"state": dict(enumerate(states)), "param_groups": groups}


ONE_EACH = [{"params": [0]}, {"params": [1]}]
STATES = (moments(1, (6,)), moments(2, (3,)))
WEIGHTS = [torch.full((6,), 7.0), torch.full((3,), 8.0)]
FORMS = {
    "ZeRO": {"single_partition_of_fp32_groups": WEIGHTS, "base_optimizer_state": by_number(*STATES, groups=ONE_EACH)},
    "ZeRO, elastic": {"single_partition_of_fp32_groups": WEIGHTS, "base_optimizer_state": list(STATES)},
    "old ZeRO": {
        "local_sub_partitions_of_fp32_groups": [[weight] for weight in WEIGHTS],
        "base_optimizer_state": by_number(*STATES, groups=ONE_EACH),
    },
    "old ZeRO, elastic": {
        "local_sub_partitions_of_fp32_groups": [[weight] for weight in WEIGHTS],
        "base_optimizer_state": [[state] for state in STATES],
    },
    "fp16": {"fp32_groups_flat": WEIGHTS, "optimizer_state_dict": by_number(*STATES, groups=ONE_EACH)},
    "fp16, parameter by parameter": {
        "fp32_groups": [[weight] for weight in WEIGHTS],
        "optimizer_state_dict": by_number(*STATES, groups=ONE_EACH),
    },
    "fp32": by_number(*STATES, groups=ONE_EACH),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same(form: str) -> None:
    content = read_content(FORMS[form])
    for group, state, weight in zip(content.groups, STATES, WEIGHTS, strict=True):
        (run,) = group
        assert torch.equal(run["exp_avg"], state["exp_avg"])
        assert torch.equal(run["exp_avg_sq"], state["exp_avg_sq"])
        assert ("weight" in run) == (form != "fp32")
        assert form == "fp32" or torch.equal(run["weight"], weight)


COUNTS: dict[str, tuple[dict[str, Any], set[int]]] = {
    "by parameter, as tensors": (by_number(moments(1, (2,), step=torch.tensor(5.0)), groups=[{"params": [0]}]), {5}),
    # DeepSpeed's FusedAdam, whose groups begin with a count of 0 that never changes.
    "of the last of a group": (
        by_number(*(moments(1, (2,), step=n) for n in (0, 0, 5, 5)), groups=[{"params": [0, 1, 2], "step": 0}, {"params": [3], "step": 0}]),
        {5},
    ),
    "by group": (by_number(moments(1, (2,)), groups=[{"params": [0], "step": 5}]), {5}),
    "beside elastic states": ({**FORMS["ZeRO, elastic"], "base_optimizer_state_step": 5}, {5}),
    "lost": (FORMS["ZeRO, elastic"], set()),
}  # fmt: skip


@pytest.mark.parametrize("where", COUNTS)
def test_steps_are_counted_where_the_optimizer_counts_them(where: str) -> None:
    saved, counts = COUNTS[where]
    assert read_content(saved).steps == counts


def test_stage_3_is_told_by_its_vectors_too() -> None:
    with pytest.raises(ValueError, match="it is of ZeRO stage 3"):
        read_content({"fp32_flat_groups": [], "optimizer_state_dict": {}})


def test_weights_and_states_of_unlike_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="not of the same parameters"):
        read_content({**FORMS["ZeRO, elastic"], "base_optimizer_state": [STATES[0]]})


def test_a_vector_gives_tensors_across_its_runs() -> None:
    vector = Vector((torch.arange(5.0), torch.arange(5.0, 6.0), torch.arange(6.0, 12.0)))
    assert vector.length == 12
    assert torch.equal(vector.take(3, (2, 3)), torch.tensor([[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]))
    assert vector.take(6, (4,)).data_ptr() == vector.runs[2].data_ptr()
    with pytest.raises(ValueError, match=r"12 values, too few for \[2, 2\] from 10 on"):
        vector.take(10, (2, 2))


def test_whole_parameters_are_given_only_as_what_they_are() -> None:
    vector = Vector((torch.zeros(2, 3), torch.zeros(3, 2)))
    assert vector.take(6, (3, 2)).shape == (3, 2)
    with pytest.raises(ValueError, match=r"\[2, 3\] from 0 on, not \[3, 2\] from 0 on"):
        vector.take(0, (3, 2))


def test_written_places_leave_out_what_aligns_parameters() -> None:
    shapes = [
        {"sequential.2.a.weight": (2, 3), "sequential.2.b.weight": torch.Size([1, 2])},
        {"sequential.2.a.bias": (2,)},
    ]
    expected = {"2.a.weight": (0, 0, (2, 3)), "2.b.weight": (0, 6, (1, 2)), "2.a.bias": (1, 0, (2,))}
    assert written_slots(shapes, None) == {name: Slot(*place) for name, place in expected.items()}
    assert written_slots(shapes, [[10, 0], [0]])["2.b.weight"] == Slot(0, 16, (1, 2))


@pytest.mark.parametrize(
    ("theirs", "name"),
    [
        ("sequential.2.attention.dense.weight", "2.attention.dense.weight"),
        ("2.attention.dense.weight", "2.attention.dense.weight"),
        ("tied_modules.embed.word_embeddings.weight", "0.word_embeddings.weight"),
        ("module.tied_modules.embed.word_embeddings.weight", "0.word_embeddings.weight"),
    ],
)
def test_names_of_modules_are_those_of_layers(theirs: str, name: str) -> None:
    assert layer_name(theirs) == name


PARAMETERS = {
    "0.word_embeddings.weight": (8, 2),
    "2.input_layernorm.weight": (2,),
    "2.attention.dense.weight": (2, 2),
    "2.attention.dense.bias": (2,),
    "5.norm.weight": (2,),
    "6.final_linear.weight": (8, 2),
}


def test_what_is_not_decayed_lies_apart() -> None:
    (slots,) = derived_slots(PARAMETERS, [[36, 6]])
    assert [(name, slot.group, slot.start) for name, slot in slots.items()] == [
        ("0.word_embeddings.weight", 0, 0),
        ("2.attention.dense.weight", 0, 16),
        ("6.final_linear.weight", 0, 20),
        ("2.input_layernorm.weight", 1, 0),
        ("2.attention.dense.bias", 1, 2),
        ("5.norm.weight", 1, 4),
    ]


def test_without_decay_all_lie_together() -> None:
    (slots,) = derived_slots(PARAMETERS, [[42]])
    assert [slot.start for slot in slots.values()] == [0, 16, 18, 22, 24, 26]


def test_lengths_that_no_cut_into_stages_has_are_refused() -> None:
    first, second = derived_slots(PARAMETERS, [[20, 4], [16, 2]])
    assert [*first, *second] == [
        "0.word_embeddings.weight",
        "2.attention.dense.weight",
        "2.input_layernorm.weight",
        "2.attention.dense.bias",
        "6.final_linear.weight",
        "5.norm.weight",
    ]
    with pytest.raises(ValueError, match=r"pipeline stage 1 have \[16, 3\] values"):
        derived_slots(PARAMETERS, [[20, 4], [16, 3]])
