"""Every layout counts the same characters: replicas those of their own samples, ranks that share sequences those of whole ones."""

from __future__ import annotations

import torch

from megatron.data.batch import Batch, build_batch
from megatron.data.cut_sequence import cut_sequence
from megatron.mpu.groups import ProcessGroups, build_process_groups, single_process_groups
from megatron.mpu.topology import Topology
from megatron.tokenizer.char_level import CharLevelTokenizer
from megatron.training.characters import CharacterCount
from tests.toy_model import rows_of
from tests.worlds import run_world

LAYOUTS = (
    Topology(data=4),
    Topology(context=4),
    Topology(data=2, context=2),
    Topology(pipe=2, tensor=2),
    Topology(pipe=2, context=2),
    Topology(context=2, tensor=2),
)
TEXT = "日本語のテキスト, Ünïcödé 🙂 and ASCII.\x00" * 12
ROWS, LENGTH = 8, 60


def test_a_layout_changes_no_count() -> None:
    alone = counted(single_process_groups())
    assert 0 < alone < ROWS * LENGTH
    assert run_world(4, count_in_every_layout) == [[alone] * len(LAYOUTS)] * 4


def count_in_every_layout(rank: int) -> list[int]:
    return [counted(build_process_groups(topology)) for topology in LAYOUTS]


def counted(groups: ProcessGroups) -> int:
    counter = CharacterCount(CharLevelTokenizer(), groups)
    share = ROWS // groups.data.size
    batch = cut_sequence(
        rows_of(whole_batch(), groups.data.rank * share, (groups.data.rank + 1) * share), groups.context
    )
    reads = groups.pipe.rank in (0, groups.pipe.size - 1)
    list(counter.follow(iter([[batch] if reads else None])))
    return counter.total()


def whole_batch() -> Batch:
    stream = torch.tensor(list(TEXT.encode()))
    starts = torch.arange(ROWS)[:, None] * LENGTH
    return build_batch(stream[starts + torch.arange(LENGTH + 1)])
