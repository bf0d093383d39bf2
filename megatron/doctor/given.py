"""What the words of a command line amount to: a run, or launcher keys alone, and the machines that these name."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.errors import ConfigError
from megatron.launcher.base import Host
from megatron.launcher.hosts.resolve import resolve_hosts
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import derive_launcher
from megatron.neox_arguments.keys.runner import RunnerArgs
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.resolve import REQUIRED

SCRIPT = "train.py"
"""What the run is taken to be: it needs most."""

STAND_IN = {
    "num_layers": 1,
    "hidden_size": 64,
    "num_attention_heads": 1,
    "seq_length": 64,
    "tokenizer_type": "CharLevelTokenizer",
    "user_script": "generate.py",
    "load": "nothing",
    "load_if_exists": True,
    "max_restarts": 0,
    "elastic": False,
}
"""A run for words that name none, so that launcher keys are read as those of a run are."""


@dataclass(frozen=True)
class Given:
    """args: None when nothing could be made of the words, for the reasons in `problems`; has_model: whether they describe a run; problems:
    why train.py would refuse it; hosts: the machines, with the slots used of each.
    """

    args: NeoXArgs | None
    has_model: bool
    hosts: tuple[Host, ...] = ()
    problems: tuple[str, ...] = ()


def understand(values: ConfigValues) -> Given:
    """Read the words as train.py would; where it would refuse them, as far as they go."""
    hosts: tuple[Host, ...] = ()

    def count_processes(args: RunnerArgs) -> int:
        nonlocal hosts
        hosts = resolve_hosts(args)
        return sum(len(host.slots) for host in hosts)

    has_model = any(key in values.values for key in REQUIRED)
    more = [f"user_script={SCRIPT}"] if has_model else [f"{key}={value}" for key, value in STAND_IN.items()]
    values = apply_overrides(values, more, source="deepy.py")
    try:
        return Given(NeoXArgs.from_values(values, world_size=count_processes), has_model, hosts)
    except ConfigError as error:
        problems = error.problems
    try:
        args = NeoXArgs.from_values(values, world_size=count_processes, planning=True)
    except ConfigError:
        return Given(None, has_model, hosts, problems)
    if values.values.get("launcher") is None and args.launcher == "local":  # as planning has it, which starts nothing
        launcher = derive_launcher(None, slurm=False, mpi=False, hosts=len(hosts), several=args.force_multi)
        args = args.model_copy(update={"launcher": launcher})
    return Given(args, has_model, hosts, problems)
