"""Our process groups in the form DeepSpeed asks for (its "mpu" and its pipeline grid are the same object here).

DeepSpeed takes a missing group for the whole world, while ours mean "just me" by it; a group of one is therefore made real here.
In DeepSpeed's words "model parallel" spans the pipeline and tensor ranks of one replica, "slice" is tensor parallelism, and "data
parallel" spans all replicas: our data and context ranks, which have the same weights and see different tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from megatron.mpu.groups import Group, ProcessGroups


class Grid:
    """What DeepSpeed's engines and optimizers ask about the place of this process. Needs an initialised torch.distributed."""

    def __init__(self, groups: ProcessGroups) -> None:
        self._groups = groups
        self._here = groups.topology.coordinates(groups.rank)
        self._alone: dist.ProcessGroup | None = None
        self.global_rank = groups.rank
        self.world_size = groups.topology.world_size
        self.pipe_parallel_size = groups.pipe.size
        self.data_parallel_size = groups.replicas.size
        self.model_parallel_size = self.slice_parallel_size = groups.tensor.size
        self.stage_id = self._here.pipe
        self.data_parallel_id = groups.replicas.rank
        self.pp_group = list(groups.pipe.ranks)

    def _handle(self, group: Group) -> dist.ProcessGroup:
        if group.handle is not None:
            return group.handle
        if self._alone is None:
            alone: Any = dist.group.WORLD
            if self.world_size > 1:
                alone = dist.new_group([self.global_rank], use_local_synchronization=True)
            self._alone = alone
        return self._alone

    def stage_to_global(self, stage_id: int) -> int:
        """The global rank of the process of `stage_id` with our other coordinates."""
        return self._groups.topology.rank(**{**vars(self._here), "pipe": stage_id})

    def get_global_rank(self) -> int:
        return self.global_rank

    def get_stage_id(self) -> int:
        return self.stage_id

    def get_data_parallel_id(self) -> int:
        return self.data_parallel_id

    def get_pipe_parallel_rank(self) -> int:
        return self.stage_id

    get_pipeline_model_parallel_rank = get_pipe_parallel_rank

    def get_pipe_parallel_world_size(self) -> int:
        return self.pipe_parallel_size

    get_pipeline_model_parallel_world_size = get_pipe_parallel_world_size

    def get_pipe_parallel_group(self) -> dist.ProcessGroup:
        return self._handle(self._groups.pipe)

    get_pipeline_model_parallel_group = get_pipe_parallel_group

    def get_data_parallel_rank(self) -> int:
        return self.data_parallel_id

    def get_data_parallel_world_size(self) -> int:
        return self.data_parallel_size

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        return self._handle(self._groups.replicas)

    def get_data_parallel_group_ranks(self) -> list[int]:
        return list(self._groups.replicas.ranks)

    def get_model_parallel_rank(self) -> int:
        return self._groups.model.rank

    def get_model_parallel_world_size(self) -> int:
        return self._groups.model.size

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        return self._handle(self._groups.model)

    def get_slice_parallel_rank(self) -> int:
        return self._here.tensor

    get_tensor_model_parallel_rank = get_slice_parallel_rank

    def get_slice_parallel_world_size(self) -> int:
        return self.slice_parallel_size

    get_tensor_model_parallel_world_size = get_slice_parallel_world_size

    def get_slice_parallel_group(self) -> dist.ProcessGroup:
        return self._handle(self._groups.tensor)

    get_tensor_model_parallel_group = get_slice_parallel_group


def group_of_stages(groups: ProcessGroups, stages: Sequence[int]) -> dist.ProcessGroup | None:
    """The processes of `stages` (more than one) with our other coordinates, None when ours is not among them; all processes call it."""
    if len(stages) == groups.pipe.size:
        return groups.pipe.handle
    topology, mine = groups.topology, None
    for pipeline in topology.group_ranks("pipe"):
        ranks = [pipeline[stage] for stage in stages]
        handle = dist.new_group(ranks)
        if groups.rank in ranks:
            mine = handle
    return mine
