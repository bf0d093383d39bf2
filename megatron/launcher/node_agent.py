"""Torch's elastic agent over our rank processes. The one module of the launcher that imports torch; only the agent process loads it.

From torch come the rendezvous of the machines, the numbering of the ranks and the watching loop (`SimpleElasticAgent`, made to be
extended like this). Starting, signalling and ending processes is ours: torch's own ends all ranks on SIGTERM within 30 s and shows
every rank's traceback.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from torch.distributed import DistNetworkError
from torch.distributed.elastic.agent.server.api import (
    RunResult,
    SimpleElasticAgent,
    Worker,
    WorkerGroup,
    WorkerSpec,
    WorkerState,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from megatron.environment import RankEnvironment
from megatron.errors import LaunchError
from megatron.launcher.agent_options import AgentOptions
from megatron.launcher.ports import free_port
from megatron.launcher.ranks import Ranks, rank_argv
from megatron.launcher.restarts import Restarts

RUN_ID = "neox"
RENDEZVOUS_SECONDS = 600
"""How long the machines of a job wait for the last of them."""


class NodeAgent(SimpleElasticAgent):
    """Runs the ranks of one machine until all have succeeded or one has failed for good."""

    def __init__(self, options: AgentOptions, ranks: Ranks, *, environment: Mapping[str, str]) -> None:
        spec = WorkerSpec(
            role="rank",
            local_world_size=options.ranks,
            rdzv_handler=build_rendezvous(options),
            entrypoint=options.script,
            args=options.arguments,
            max_restarts=options.max_restarts,
            monitor_interval=0.1,
        )
        super().__init__(spec)
        self._options = options
        self._restarts = Restarts(options.max_restarts)
        self._ranks = ranks
        self._environment = environment

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        """Start the ranks again, around a new store: in the old one they would meet the keys of their predecessors, an alarm among them."""
        worker_group.spec.rdzv_handler = build_rendezvous(self._options, port=free_port())
        super()._restart_workers(worker_group)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        """Start the ranks; returns process ids by local rank."""
        spec = worker_group.spec
        environments = {worker.global_rank: self._variables(worker_group, worker) for worker in worker_group.workers}
        processes = self._ranks.start(rank_argv(str(spec.entrypoint), spec.args), environments)
        return {worker.local_rank: processes[worker.global_rank] for worker in worker_group.workers}

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self._ranks.any_failed():
            self._ranks.end()
            # torch starts the ranks again after every failure as long as this number lets it.
            self._remaining_restarts = int(self._restarts.take(self._ranks, world_size=self._options.ranks))
            return RunResult(state=WorkerState.FAILED)
        if self._ranks.all_succeeded():
            return RunResult(
                state=WorkerState.SUCCEEDED, return_values={worker.global_rank: None for worker in worker_group.workers}
            )
        return RunResult(state=WorkerState.HEALTHY)

    def _stop_workers(self, worker_group: WorkerGroup, *_: Any, **__: Any) -> None:
        self._ranks.end()

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, *_: Any, **__: Any) -> None:
        self._ranks.end()

    def _variables(self, worker_group: WorkerGroup, worker: Worker) -> dict[str, str]:
        place = RankEnvironment(
            rank=worker.global_rank,
            local_rank=worker.local_rank,
            world_size=worker.world_size,
            local_world_size=worker_group.spec.local_world_size,
            master_addr=str(worker_group.master_addr),
            master_port=int(worker_group.master_port or 0),
        )
        # The store of the agents serves the ranks too: its port is held by us from before they start, so nobody can take it.
        elastic = {
            "GROUP_RANK": str(worker_group.group_rank),
            "GROUP_WORLD_SIZE": str(worker_group.group_world_size),
            "TORCHELASTIC_RUN_ID": RUN_ID,
            "TORCHELASTIC_RESTART_COUNT": str(self._restarts.done),
            "TORCHELASTIC_MAX_RESTARTS": str(self._restarts.limit),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        return {**self._environment, **place.variables(), **elastic}


def build_rendezvous(options: AgentOptions, *, port: int | None = None) -> StaticTCPRendezvous:
    """Where the agents meet, with node ranks as given. The store is open when this returns. port: instead of the one in `options`.

    On one machine nobody else needs to know the port, so another one is taken when it is in use. Raises LaunchError when the master
    cannot be reached, or its port cannot be opened.
    """
    port = port or options.master_port
    for _ in range(5 if options.nodes == 1 else 1):
        try:
            rendezvous = StaticTCPRendezvous(
                options.master_addr, port, options.node_rank, options.nodes, RUN_ID, RENDEZVOUS_SECONDS
            )
            rendezvous.next_rendezvous()
            return rendezvous
        except DistNetworkError as error:
            reason = str(error).splitlines()[0]
            port = free_port()
    what = "open" if options.node_rank == 0 else "reach"
    raise LaunchError(
        f"node {options.node_rank} ({os.uname().nodename}) could not {what} {options.master_addr}:{options.master_port} ({reason}): check "
        '"master_addr" and the firewall, or choose another "master_port"'
    )


def run_node(options: AgentOptions, ranks: Ranks, *, environment: Mapping[str, str]) -> None:
    """Run the ranks of this machine to their end, good or bad; `ranks` knows which. environment: what every rank starts with."""
    NodeAgent(options, ranks, environment=environment).run()
