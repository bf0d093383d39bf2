"""The questions of an examination to all of its surveyors, each asked of all of them at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import TypeAdapter

from megatron.doctor.facts.disks import Disk
from megatron.doctor.facts.machine import Machine
from megatron.doctor.facts.node import NodeFacts
from megatron.doctor.nodes.clock import skew_of
from megatron.doctor.nodes.link import Link

CLOCK_QUESTIONS = 7
ALL_PAIRS = 8
"""Machines up to which every one is asked to reach every other; of more, each asks the next."""
AT_ONCE = 64

Answer = TypeVar("Answer")

_MACHINE, _DISK = TypeAdapter(Machine), TypeAdapter(Disk)


class Conversation:
    """names: of the machines, in the order of their ranks; folders: where the run writes, by key; marks: for each of these a file there and
    what it holds. problems: why a machine fell silent, by name.
    """

    def __init__(self, names: Sequence[str], folders: Mapping[str, str], marks: Mapping[str, tuple[str, str]]) -> None:
        self.problems: dict[str, str] = {}
        self._names, self._folders, self._marks = tuple(names), dict(folders), dict(marks)
        self._links: dict[str, Link] = {}

    def hold(self, links: Mapping[str, Link], came: Mapping[str, float]) -> dict[str, NodeFacts]:
        """Ask everything. A machine that falls silent ends its own examination alone. came: seconds until each machine spoke."""
        self._links = dict(links)
        clocks = self._ask_all(lambda _, link: skew_of(_clock_samples(link)))
        machines = self._ask_all(lambda _, link: _MACHINE.validate_python(link.ask("machine")))
        folders = self._ask_all(lambda _, link: self._ask_folders(link))
        shared = self._ask_all(lambda _, link: self._ask_marks(link))
        meetings = self._ask_all(lambda _, link: link.ask("meeting place"))
        ports = self._ask_all(lambda _, link: int(link.ask("listen")["port"]))
        places = {name: (self._address(name), port) for name, port in ports.items()}
        peers = self._ask_all(
            lambda name, link: _ask_peers(
                link, {other: places[other] for other in self._peers(name) if other in places}
            )
        )
        facts = {}
        for name in peers:
            skew, round_trip = clocks[name]
            facts[name] = NodeFacts(
                machine=machines[name],
                came_after=came[name],
                skew=skew,
                round_trip=round_trip,
                folders=folders[name],
                shared=shared[name],
                meeting_place=str(meetings[name]["problem"]),
                meeting_port=int(meetings[name]["port"]),
                peers=peers[name],
            )
        return facts

    def _ask_all(self, ask: Callable[[str, Link], Answer]) -> dict[str, Answer]:
        """The answers by name, of those machines that answer."""

        def attempt(name: str) -> Answer | None:
            try:
                return ask(name, self._links[name])
            except (OSError, KeyError, ValueError) as error:
                self.problems[name] = f"its surveyor did not answer: {error}"
                return None

        names = list(self._links)
        with ThreadPoolExecutor(max_workers=max(1, min(len(names), AT_ONCE))) as pool:
            answers = dict(zip(names, pool.map(attempt, names), strict=True))
        for name in [name for name, answer in answers.items() if answer is None]:
            self._links.pop(name).close()
        return {name: answer for name, answer in answers.items() if answer is not None}

    def _ask_folders(self, link: Link) -> dict[str, Disk]:
        told = link.ask("folders", paths=list(self._folders.values()))["folders"]
        return {key: _DISK.validate_python(one) for key, one in zip(self._folders, told, strict=True)}

    def _ask_marks(self, link: Link) -> dict[str, str]:
        problems = {}
        for key, (path, content) in self._marks.items():
            told = link.ask("read", path=path)
            problems[key] = str(told["problem"]) or (
                "" if told["content"] == content else "another file has its name there"
            )
        return problems

    def _address(self, name: str) -> str:
        """With which other machines probably reach this one: that with which it reaches us."""
        theirs = self._links[name].addresses[1]
        return name if theirs.startswith("127.") and len(self._names) > 1 else theirs

    def _peers(self, name: str) -> Iterator[str]:
        count, place = len(self._names), self._names.index(name)
        wanted = range(1, count) if count <= ALL_PAIRS else (1,)
        return (self._names[(place + step) % count] for step in wanted if count > 1)


def _clock_samples(link: Link) -> Iterator[tuple[float, float, float]]:
    for _ in range(CLOCK_QUESTIONS):
        asked = time.time()
        answered = float(link.ask("time")["time"])
        yield asked, answered, time.time()


def _ask_peers(link: Link, places: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    told: Mapping[str, Any] = link.ask("reach", places=places)["problems"]
    return {name: str(problem) for name, problem in told.items()}
