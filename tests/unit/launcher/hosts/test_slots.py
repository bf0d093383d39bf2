"""Which slots of the machines that are left are taken."""

from __future__ import annotations

from megatron.launcher.base import Host
from megatron.launcher.hosts.slots import choose_slots


def slots(*counts: int) -> list[Host]:
    return [Host(f"h{number}", tuple(range(count))) for number, count in enumerate(counts)]


def test_the_last_machines_are_cut() -> None:
    assert choose_slots(slots(4, 4, 4), 6, tensor=1, context=1) == tuple(slots(4, 2))
    assert choose_slots(slots(4, 4, 4), 8, tensor=2, context=2) == tuple(slots(4, 4))


def test_device_numbers_stay() -> None:
    assert choose_slots([Host("a", (1, 5, 6))], 2, tensor=2, context=1) == (Host("a", (1, 5)),)


def test_tensor_ranks_stay_on_a_machine() -> None:
    assert choose_slots(slots(3, 4), 4, tensor=2, context=1) == tuple(slots(2, 2))
    assert choose_slots(slots(6, 8), 8, tensor=2, context=2) == tuple(slots(4, 4))
    assert choose_slots(slots(6, 3), 8, tensor=2, context=2) == tuple(slots(6, 2)), "tensor groups at least"


def test_groups_larger_than_a_machine_take_the_machines_as_they_come() -> None:
    assert choose_slots(slots(4, 4, 4), 8, tensor=8, context=1) == tuple(slots(4, 4))
