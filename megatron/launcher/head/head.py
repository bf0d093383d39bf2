"""The head of a job: waits for the agents, has the ranks started, and decides what a failure, a lost machine or a signal means for all.

The first rank that fails ends all, and its error is the last thing told, once; after a crash that may pass, the ranks are started again.
"""

from __future__ import annotations

import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace

from megatron.errors import LaunchError
from megatron.launcher.addresses import LOOPBACK
from megatron.launcher.agent.work import Work, wants_cpu
from megatron.launcher.base import Job
from megatron.launcher.connection import Beats, Connection, Message
from megatron.launcher.failure import killed_by
from megatron.launcher.head.gate import Gate
from megatron.launcher.head.nodes import Node, check_devices, node_of, nodes_of
from megatron.launcher.head.outcome import Outcome, Stop, again, judge, stopped_before
from megatron.launcher.head.programs import FAREWELL_SECONDS, Programs
from megatron.launcher.process import POLL_SECONDS

START_SECONDS = 600.0
"""Seconds for all agents to come, once the commands that start them run: pods that pull an image come minutes after each other."""
IMPATIENCE_SECONDS = 30.0
"""Seconds after which the user learns whom the head waits for."""
END_SECONDS = 15.0
"""Seconds for all ranks to end after one has failed, and for agents beyond the grace period of their ranks."""
LAST_WORDS_SECONDS = 5.0
"""Seconds for ranks to leave their reasons after another one has failed."""
LOST_SECONDS = 1.0
"""The same after a machine was lost: they have no better reason than that."""
LATECOMER_SECONDS = 2.0
"""Seconds for the agents of other machines to come when a program has failed to start one, so that the right machine is named."""
UNDER_WAY_SECONDS = 1.0
"""Seconds for the programs to end by themselves when machines are lost, of which they wait to hear in vain."""


@dataclass(frozen=True)
class History:
    """What came before this attempt of the job. job: its name; began: when its first attempt did (monotonic); restarts: how many there were."""

    job: str
    began: float
    restarts: int = 0


class Head:
    """One attempt of a job, on the machines of `job`. listener: where the agents connect to; programs: what starts them."""

    def __init__(self, job: Job, listener: socket.socket, programs: Programs, history: History) -> None:
        self._job = job
        self._listener = listener
        self._programs = programs
        self._history = history
        self._restarts = history.restarts
        self._port: int | None = None
        self._nodes = nodes_of(job.hosts)
        self._gate = Gate(listener, self._nodes, token=job.head.token)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._beats = Beats()
        self._stop: int | None = None
        self._stop_is_ours = False
        self._interrupts = 0
        self._signals: list[int] = []
        self._deadline = float("inf")
        self._latecomers_until: float | None = None
        self._trouble: str | None = None
        self._ending = False

    def on_signal(self, number: int) -> None:
        """A signal came to this process. Called by signal handlers."""
        self._signals.append(number)

    def run(self) -> Outcome:
        """Until the ranks have ended for good; the agents have left then. Raises LaunchError when the machines do not suit the job."""
        self._beats.begin()
        try:
            self._programs.start()
            if not self._gather():
                return self._leave(self._before_the_start())
            if not wants_cpu(self._job.environment):
                check_devices(self._nodes)
            while True:
                outcome = self._attempt()
                if not outcome.may_pass or outcome.lost or self._restarts == self._job.max_restarts:
                    return self._leave(outcome)
                self._restarts += 1
                sys.stderr.write(again(outcome, self._restarts, self._job.max_restarts))
        except LaunchError as error:
            return self._leave(Outcome(1, f"error: {error}\n"))
        finally:
            self._beats.end()
            self._selector.close()
            self._gate.close()
            self._programs.end(patience=UNDER_WAY_SECONDS, lost=any(node.gone for node in self._nodes))

    def _gather(self) -> bool:
        """Until the agents of all machines have come; False when that is not to be."""
        begin = time.monotonic()
        told = False
        while missing := [node for node in self._nodes if node.hello is None]:
            self._turn()
            if self._stop is not None or self._trouble is not None or any(node.gone for node in self._nodes):
                return False
            waited = time.monotonic() - begin
            if waited > START_SECONDS:
                self._miss(f"has not started its agent within {START_SECONDS:g} s{self._turned_away()}")
            if waited > IMPATIENCE_SECONDS and not told:
                told = True
                names = ", ".join(node.name for node in missing[:8]) + (", ..." if len(missing) > 8 else "")
                sys.stderr.write(
                    f"waiting for {len(missing)} of {len(self._nodes)} machines ({names}){self._turned_away()}\n"
                )
        self._selector.unregister(self._listener)
        self._gate.close()
        return True

    def _turned_away(self) -> str:
        address = self._gate.turned_away
        return f"; somebody at {address} was turned away, who did not know the token of this job" if address else ""

    def _before_the_start(self) -> Outcome:
        if self._stop is not None:
            return stopped_before(self._how_stopped())
        return self._judge()

    def _how_stopped(self) -> Stop:
        return Stop(self._stop, self._job.grace_seconds, self._job.saves, ours=self._stop_is_ours)

    def _judge(self) -> Outcome:
        outcome = judge(self._nodes, self._how_stopped(), trouble=self._trouble, now=time.time())
        return replace(outcome, restarts=self._restarts)

    def _attempt(self) -> Outcome:
        """Start the ranks, and wait until they have ended."""
        for node in self._nodes:
            node.ended = None
        self._deadline, self._ending, self._trouble = float("inf"), False, None
        port = self._open_store()
        if port is not None and self._stop is None:
            for node in self._nodes:
                node.running = True
                node.tell("start", **self._work(node, port).to_message())
        while any(node.running for node in self._nodes):
            self._turn()
            if time.monotonic() > self._deadline:
                self._give_up()
        return self._judge()

    def _open_store(self) -> int | None:
        """The port of the store in which the ranks will meet; None when it could not be opened, or a signal came meanwhile."""
        if self._job.world_size == 1:
            return self._job.master_port
        several = len(self._nodes) > 1
        first = self._nodes[0]
        self._port = None
        fixed = several and self._job.port_is_fixed
        begins = (
            self._restarts == self._history.restarts
        )  # later the port may still be held by what the ranks left behind
        port = self._job.master_port if begins or fixed else 0
        first.tell("open_store", port=port, several=several, fixed=fixed)
        while self._port is None and first.ended is None and self._trouble is None:
            self._turn()
            if self._stop is not None or any(node.gone for node in self._nodes):
                return None
        return self._port

    def _work(self, node: Node, port: int) -> Work:
        job = self._job
        several = len(self._nodes) > 1
        return Work(
            script=job.script,
            arguments=job.arguments,
            directory=job.directory,
            environment=dict(job.environment),
            slots=node.host.slots,
            first_rank=node.first_rank,
            world_size=job.world_size,
            node=node.host.name,
            node_rank=node.number,
            nodes=len(self._nodes),
            master_addr=job.master_addr or (self._nodes[0].address if several else LOOPBACK),
            master_port=port,
            restarts=self._restarts,
            max_restarts=job.max_restarts,
            job=self._history.job,
            age=time.monotonic() - self._history.began,
            grace_seconds=job.grace_seconds,
            log_dir=job.log_dir,
            interactive=job.interactive,
        )

    def _turn(self) -> None:
        """Hear what there is to hear, for a moment, and act upon it."""
        for key, _ in self._selector.select(POLL_SECONDS):
            if key.fileobj is self._listener:
                if stranger := self._gate.let_in():
                    self._selector.register(stranger, selectors.EVENT_READ)
            else:
                self._hear(key.fileobj)  # type: ignore[arg-type]
        self._look_at_signals()
        self._look_for_the_lost()
        self._look_at_programs()

    def _hear(self, link: Connection) -> None:
        messages = link.read()
        if not self._gate.knows(link):
            self._greet(link, messages)
            return
        node = next(node for node in self._nodes if node.link is link)
        for message in messages:
            self._learn(node, message)
        if link.closed:
            self._selector.unregister(link)
            if node.gone is None:
                node.lose(self._why_silent(node))
                self._end_all(patience=LOST_SECONDS)

    def _greet(self, link: Connection, messages: list[Message]) -> None:
        node = self._gate.greet(link, messages)
        if node is not None:
            self._beats.add(link)
        elif link.closed:
            self._selector.unregister(link)
            self._trouble = self._trouble or self._gate.trouble

    def _why_silent(self, node: Node) -> str:
        """An agent hung up without a farewell. On this machine we are told how it ended."""
        if len(self._nodes) == 1:
            deadline = time.monotonic() + LOST_SECONDS
            while (end := self._programs.first_end()) is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            if end is not None and end[1] < 0:
                return f"{end[0]} {killed_by(-end[1])}, and its ranks with it"
        return f"the agent on {node.title} ended without a word: it was killed, or its machine went down"

    def _learn(self, node: Node, message: Message) -> None:
        match message["kind"]:
            case "store":
                self._port = int(message["port"])
            case "trouble":
                self._end_all(patience=LAST_WORDS_SECONDS if self._stop is None else LOST_SECONDS)
            case "ended":
                node.ended, node.running = message, False
                if message.get("error") or not message.get("succeeded"):
                    self._end_all(patience=LAST_WORDS_SECONDS)
            case "signal":
                self._ask_to_stop(int(message["number"]))
            case _:
                pass

    def _look_at_signals(self) -> None:
        """Signals that came to this process; a second Ctrl-C is a wish not to wait."""
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGUSR2:
                self._tell_all("notice")
                continue
            if self._is_for_the_ranks(number):
                self._tell_all("interrupt")
                continue
            self._interrupts += number == signal.SIGINT
            self._stop_is_ours = True
            if self._stop is None:
                self._ask_to_stop(number)
            elif number == signal.SIGINT and self._interrupts > 1:
                self._tell_all("kill")

    def _is_for_the_ranks(self, number: int) -> bool:
        """Whether a signal is a word of the person that the ranks talk with. Ranks that do not listen to it yet end of it."""
        talking = self._job.interactive and self._stop is None and all(node.running for node in self._nodes)
        return number == signal.SIGINT and talking

    def _ask_to_stop(self, number: int) -> None:
        """All ranks are asked to save and stop, once, whether the signal came to us or to an agent."""
        if self._stop is None:
            self._stop = number
            self._deadline = min(self._deadline, time.monotonic() + self._job.grace_seconds + END_SECONDS)
            self._tell_all("stop", number=number)

    def _look_for_the_lost(self) -> None:
        for node in self._nodes:
            if node.link is None or node.gone is not None or node.link.silence <= self._job.silence:
                continue
            node.lose(
                f"{node.title} has not been heard for {node.link.silence:.0f} s: the machine or its network is down"
            )
            self._end_all(patience=LOST_SECONDS)

    def _look_at_programs(self) -> None:
        """A program that has ended has done its work only when its agents have."""
        for host, line in self._programs.complaints():
            node = node_of(self._nodes, {"node": host})
            if node is not None and node.hello is None:
                node.lose(f"{node.title} has not started its agent (what it says is above): {line}")
        if self._ending or self._trouble or not (end := self._programs.first_end()):
            return
        name, code = end
        how = killed_by(-code) if code < 0 else f"ended with status {code}"
        if any(node.hello is None for node in self._nodes):
            if code == 0 and not self._programs.all_ended():
                return
            self._latecomers_until = self._latecomers_until or time.monotonic() + LATECOMER_SECONDS
            if time.monotonic() > self._latecomers_until:
                self._miss(f"has not started its agent, and {name} {how} (what it says is above)")
        elif code != 0 and any(node.running for node in self._nodes):
            self._trouble = f"{name} {how}, which started the agents"
            self._end_all(patience=LAST_WORDS_SECONDS)

    def _miss(self, why: str) -> None:
        """Machines whose agents have not come count as lost."""
        for node in self._nodes:
            if node.hello is None:
                node.lose(f"{node.title} {why}")

    def _end_all(self, *, patience: float) -> None:
        """The attempt has failed: what still runs is of no use. patience: seconds for ranks to end by themselves."""
        if self._ending:
            return
        self._ending = True
        self._deadline = min(self._deadline, time.monotonic() + END_SECONDS + self._job.node_timeout)
        self._tell_all("end", patience=patience)

    def _give_up(self) -> None:
        """Ranks that do not end whatever they are told."""
        for node in self._nodes:
            if node.running:
                self._tell_all("kill")
                node.lose(f"the ranks of {node.title} do not end: their agent was told to kill them")

    def _tell_all(self, kind: str, **content: object) -> None:
        for node in self._nodes:
            node.tell(kind, **content)

    def _leave(self, outcome: Outcome) -> Outcome:
        """Let the agents go, and wait for them and the programs; those of lost machines do not end by themselves."""
        for node in self._nodes:
            node.tell("exit", status=outcome.status, text=outcome.text)
        self._gate.close()  # agents that have not come yet find nobody any more
        all_there = all(node.hello is not None and node.gone is None for node in self._nodes)
        deadline = time.monotonic() + (FAREWELL_SECONDS if all_there else UNDER_WAY_SECONDS)
        while self._programs.running() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return outcome
