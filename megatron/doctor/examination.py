"""An examination: what is gathered, in which order, and what of it is judged by whom."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from megatron.components import LAUNCHERS
from megatron.doctor.facts.bandwidth import Bandwidth
from megatron.doctor.facts.checkpoints import CheckpointNeeds, checkpoint_needs
from megatron.doctor.facts.config_files import look_at_files
from megatron.doctor.facts.disks import look_at_folder
from megatron.doctor.facts.installed import Pin, read_pins
from megatron.doctor.facts.machine import Machine, gather_machine
from megatron.doctor.facts.node import NodeReport
from megatron.doctor.facts.torch_facts import TorchFacts, ask_torch
from megatron.doctor.findings import Finding, Section
from megatron.doctor.given import Given
from megatron.doctor.judging.collectives import bandwidth_section
from megatron.doctor.judging.configs import judge_copy, judge_features, judge_files, judge_places, judge_room
from megatron.doctor.judging.gpus import judge_gpus
from megatron.doctor.judging.machine import judge_compilers, judge_folders, judge_machine
from megatron.doctor.judging.nodes import nodes_section
from megatron.doctor.judging.optional import packages_to_look_for
from megatron.doctor.judging.packages import judge_packages
from megatron.doctor.judging.torch import judge_torch
from megatron.doctor.nodes.bandwidth import measure_bandwidth
from megatron.doctor.nodes.jobs import Clinic
from megatron.doctor.nodes.survey import survey
from megatron.errors import NeoXError
from megatron.launcher.base import Host
from megatron.launcher.devices import AMD_VARIABLES
from megatron.launcher.hosts.resolve import describe_hosts
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.resolving.checks.stores import protocol_of

PLACES = ("save", "log_dir", "tensorboard_dir")
"""Keys of folders that a run writes to."""
NOT_LOOKED_AT = Finding("machines", "absent", "not examined: mend the config first, which says what they are to do")
TELLS_PROGRESS = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Examination:
    """sections: the report, in reading order; the rest: the facts behind it, None where they were not asked for."""

    sections: Sequence[Section]
    machine: Machine
    torch: TorchFacts
    nodes: Sequence[NodeReport] | None = None
    bandwidth: Bandwidth | None = None


def examine(given: Given | None, *, quick: bool, progress: TELLS_PROGRESS) -> Examination:
    """Look at this machine, and at what the words name. given: None without words; quick: leave the collective test out."""
    with progress("looking at this machine"):
        machine, torch = gather_machine(also=packages_to_look_for()), ask_torch()
    run = given.args if given is not None and given.has_model else None
    sections = [*machine_sections(machine, torch, read_pins(), run)]
    if given is None or given.args is None:
        problems = [*problems_of(given), NOT_LOOKED_AT] if given else []
        return Examination([*sections, *([Section("The config", problems)] if problems else [])], machine, torch)
    args, hosts = given.args, given.hosts
    clinic, unfit = open_clinic(args, hosts)
    if given.has_model:
        sections.append(config_section(given, args, machine, torch, unfit))
    elif given.problems or unfit:
        sections.append(Section("Launcher", [*problems_of(given), *unfit]))
    if unfit:
        return Examination(sections, machine, torch)
    reports = bandwidth = None
    if is_cluster(args, hosts):
        with progress(
            f"looking at {len(hosts)} machine{'s' if len(hosts) > 1 else ''} through the launcher {args.launcher}"
        ):
            reports = survey(clinic, hosts, local_places(args) if given.has_model else {})
        sections.append(
            nodes_section(
                reports,
                wanted_port=args.master_port,
                port_is_fixed="master_port" in args.origins(),
                precision=args.precision if given.has_model else None,
            )
        )
    if not quick:
        usable = usable_hosts(hosts, reports)
        if sum(len(host.slots) for host in usable) > 1 and not torch.problem:
            with progress(f"trying collective operations of {sum(len(host.slots) for host in usable)} ranks"):
                bandwidth, problem = measure_bandwidth(clinic, usable)
            sections.append(
                bandwidth_section(bandwidth)
                if bandwidth
                else Section("Collective operations", [Finding("test", "failure", problem)])
            )
    return Examination(sections, machine, torch, reports, bandwidth)


def machine_sections(
    machine: Machine, torch: TorchFacts, pins: Mapping[str, Pin], run: NeoXArgs | None
) -> list[Section]:
    """This machine, and the packages on it. run: the config that is to be run here, if there is one."""
    disks = {path: look_at_folder(path) for path in machine.folders.values()}
    hidden = any(name in os.environ for name in AMD_VARIABLES)
    here = [
        *judge_machine(machine),
        *judge_folders(machine.folders, disks),
        *judge_compilers(machine, needed=compilers_needed(machine, torch, run)),
    ]
    computing = judge_torch(torch, pins.get("torch"), machine.gpus, hidden=hidden) + judge_gpus(machine.gpus.devices)
    return [
        Section("This machine", here),
        Section("torch and devices", computing),
        Section("Packages", judge_packages(machine.packages, pins, torch)),
    ]


def problems_of(given: Given) -> list[Finding]:
    """Why train.py would refuse the words: its own sentences, without the excerpts."""
    return [Finding("config", "failure", problem.splitlines()[0]) for problem in given.problems]


def compilers_needed(machine: Machine, torch: TorchFacts, run: NeoXArgs | None) -> list[tuple[str, str]]:
    """(program, what for): nothing of this project is compiled but kernels on GPUs, and blocks where the config asks for it."""
    needed = []
    if run and run.compile and not torch.devices and "CXX" not in os.environ:
        needed.append(("g++", "torch, which compiles the blocks for the CPU (compile)"))
    if torch.devices and "triton" in machine.packages:
        needed.append(("cc", "Triton, which compiles what calls its kernels"))
    if (
        torch.cuda
        and torch.devices
        and "flash-attn" not in machine.packages
        and run
        and "flash" in run.attention_config
    ):
        needed.append(("nvcc", "building the flash-attn package, which this config could use"))
    return needed


def config_section(
    given: Given, args: NeoXArgs, machine: Machine, torch: TorchFacts, unfit: Sequence[Finding]
) -> Section:
    """What the config asks for that is missing on this machine."""
    places = {key: look_at_folder(path) for key, path in local_places(args).items()}
    needs, disk = _needs_of(args), places.get("save")
    processes = max((len(host.slots) for host in given.hosts), default=1)
    findings = [
        *problems_of(given),
        *([] if given.problems else [Finding("config", "ok", "train.py takes it")]),
        *(
            unfit
            or [
                Finding(
                    "launcher",
                    "ok",
                    f"{args.launcher}, {args.global_num_gpus} process{'es' if args.global_num_gpus > 1 else ''}",
                )
            ]
        ),
        *judge_features(args, torch, machine.packages),
        *judge_files(look_at_files(args)),
        *judge_places(places),
        *judge_room(needs, disk),
        *judge_copy(args, needs, processes=processes, available=machine.available_bytes),
    ]
    return Section("The config", findings)


def open_clinic(args: NeoXArgs, hosts: Sequence[Host]) -> tuple[Clinic, list[Finding]]:
    """The launcher of the config, and why it cannot start anything here."""
    clinic = Clinic(args, LAUNCHERS.load(args.launcher)(args))
    if args.launcher == "torchrun" and len(hosts) > 1:
        text = "torchrun: deepy.py runs on each machine, where none can start anything on the others"
        fix = "to examine them together, name them in a hostfile and add launcher=pdsh"
        return clinic, [Finding("launcher", "warning", text, fix)]
    try:
        clinic.launcher.check(clinic.job("surveyor.py", hosts, {}))
    except Conflict as conflict:
        keys = " and ".join(f'"{key}"' for key in conflict.keys)
        return clinic, [Finding("launcher", "failure", f"{args.launcher}: {keys}: {conflict.reason}")]
    except NeoXError as error:
        return clinic, [Finding("launcher", "failure", f"{args.launcher}: {error}")]
    return clinic, []


def is_cluster(args: NeoXArgs, hosts: Sequence[Host]) -> bool:
    """Whether there are machines to look at through a launcher: a hostfile or a scheduler names some."""
    return describe_hosts(args, hosts) is not None


def usable_hosts(hosts: Sequence[Host], reports: Sequence[NodeReport] | None) -> list[Host]:
    """Those on which ranks can meet: all, or those that were examined and reach the others."""
    if reports is None:
        return list(hosts)
    well = {
        report.name
        for report in reports
        if report.facts is not None and not report.facts.meeting_place and not any(report.facts.peers.values())
    }
    return [host for host in hosts if host.name in well]


def local_places(args: NeoXArgs) -> dict[str, str]:
    """The folders that a run writes to, by their keys; stores are none."""
    named = ((key, getattr(args, key)) for key in PLACES)
    return {key: path for key, path in named if path and protocol_of(path) is None}


def _needs_of(args: NeoXArgs) -> CheckpointNeeds | None:
    try:
        return checkpoint_needs(args)
    except NeoXError:  # the tokenizer's file is damaged, which is told elsewhere
        return None
