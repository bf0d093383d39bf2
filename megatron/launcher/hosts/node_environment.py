"""The place of this machine among those on which something else has started deepy.py, from the variables of torchrun, Kubeflow or srun.

NNODES, NODE_RANK and NPROC_PER_NODE are torchrun's options, which it also reads from variables with PET_ before them (torch.distributed.run);
Kubeflow's PyTorchJob sets those, and in older releases WORLD_SIZE and RANK, which count pods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megatron.environment import DEFAULT_MASTER_PORT, first_slurm_node
from megatron.errors import LaunchError
from megatron.launcher.base import Host, numbered_name

_NODES = ("NNODES", "PET_NNODES")
_NODE_RANK = ("NODE_RANK", "PET_NODE_RANK", "GROUP_RANK")
_RANKS_PER_NODE = ("NPROC_PER_NODE", "PET_NPROC_PER_NODE")
_MASTER_ADDR = ("MASTER_ADDR", "PET_MASTER_ADDR")
_MASTER_PORT = ("MASTER_PORT", "PET_MASTER_PORT")
_COUNTED = ("auto", "gpu", "cpu", "xpu")
"""What torchrun takes instead of a number of ranks: count them."""


@dataclass(frozen=True)
class NodeEnvironment:
    """This machine is number `node_rank` of `nodes`; the first waits at master_addr:master_port. ranks_per_node: None to count devices."""

    nodes: int
    node_rank: int
    master_addr: str
    master_port: int = DEFAULT_MASTER_PORT
    ranks_per_node: int | None = None

    def hosts(self, slots: int) -> tuple[Host, ...]:
        """All machines, which have no names of their own here. slots: of each, where the variables do not say."""
        count = self.ranks_per_node or slots
        return tuple(Host(numbered_name(number), tuple(range(count))) for number in range(self.nodes))


def node_environment(environment: Mapping[str, str]) -> NodeEnvironment:
    """Read the variables. Raises LaunchError when one is missing or unusable, or when deepy.py was started once a rank."""
    _refuse_ranks(environment)
    nodes, node_rank = _place(environment)
    if not 0 <= node_rank < nodes:
        raise LaunchError(f"this is node {node_rank} of {nodes}: number the machines from 0 to {nodes - 1} (NODE_RANK)")
    port = _number(environment, _MASTER_PORT)
    if port is not None and not 0 < port < 1 << 16:
        raise LaunchError(f"MASTER_PORT is {port}: a port is a number from 1 to 65535, the same on all machines")
    return NodeEnvironment(
        nodes,
        node_rank,
        _master_addr(environment, nodes),
        DEFAULT_MASTER_PORT if port is None else port,
        _ranks_per_node(environment),
    )


def _refuse_ranks(environment: Mapping[str, str]) -> None:
    tasks, nodes = environment.get("SLURM_STEP_NUM_TASKS", "1"), environment.get("SLURM_STEP_NUM_NODES", "1")
    if "SLURM_STEP_ID" in environment and tasks.isdigit() and nodes.isdigit() and int(tasks) > int(nodes):
        raise LaunchError(
            f"srun has started deepy.py {tasks} times on {nodes} machines: start it once a machine (srun --ntasks-per-node=1), it starts the "
            "ranks there itself"
        )
    if "LOCAL_RANK" in environment and "RANK" in environment:
        raise LaunchError(
            "deepy.py was started once a rank (RANK and LOCAL_RANK are set): start it once a machine, or give torchrun the script itself "
            "(torchrun ... train.py CONFIG...)"
        )


def _place(environment: Mapping[str, str]) -> tuple[int, int]:
    """(machines, number of this one)."""
    nodes, node_rank = _node_count(environment), _number(environment, _NODE_RANK)
    if nodes is None and "RANK" in environment and "WORLD_SIZE" in environment:
        nodes, node_rank = _number(environment, ("WORLD_SIZE",)), _number(environment, ("RANK",))
    if nodes is None and "SLURM_STEP_ID" in environment:
        nodes = _number(environment, ("SLURM_STEP_NUM_NODES", "SLURM_NNODES"))
        node_rank = _number(environment, ("SLURM_NODEID",))
    if nodes == 1:
        return 1, node_rank or 0
    if nodes is not None and node_rank is not None:
        return nodes, node_rank
    missing = "NNODES (how many machines)" if nodes is None else "NODE_RANK (the number of this machine, from 0)"
    raise LaunchError(
        f'launcher "torchrun" runs deepy.py once on every machine, and {missing} is not set: set NNODES, NODE_RANK, MASTER_ADDR and '
        "MASTER_PORT in its environment"
    )


def _node_count(environment: Mapping[str, str]) -> int | None:
    """Machines; torchrun's range `2:2` is a number too when both ends agree."""
    name = _first_set(environment, _NODES)
    if name is None:
        return None
    least, _, most = environment[name].partition(":")
    if most and most != least:
        raise LaunchError(
            f'{name} is "{environment[name]}": the number of machines is fixed here, write one (max_restarts and elastic replace lost ones)'
        )
    return _number({name: least}, (name,))


def _master_addr(environment: Mapping[str, str], nodes: int) -> str:
    name = _first_set(environment, _MASTER_ADDR)
    if name is not None:
        return environment[name]
    if nodes == 1:
        return "127.0.0.1"
    if "SLURM_STEP_NODELIST" in environment:
        return first_slurm_node(environment["SLURM_STEP_NODELIST"])
    raise LaunchError(f"the job has {nodes} machines and MASTER_ADDR is not set: set it to the name of the first one")


def _ranks_per_node(environment: Mapping[str, str]) -> int | None:
    name = _first_set(environment, _RANKS_PER_NODE)
    return None if name is None or environment[name] in _COUNTED else _number(environment, (name,))


def _number(environment: Mapping[str, str], names: Sequence[str]) -> int | None:
    name = _first_set(environment, names)
    if name is None:
        return None
    text = environment[name].strip()
    if not (text.isascii() and text.isdigit()):
        raise LaunchError(f'the environment variable {name} is "{environment[name]}": it must be a whole number')
    return int(text)


def _first_set(environment: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((name for name in names if environment.get(name)), None)
