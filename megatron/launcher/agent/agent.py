"""The agent of one machine: it connects to the head, starts the ranks the head asks for, passes signals on, and tells how the ranks ended.

SIGTERM, SIGINT and SIGUSR1 reach every rank of the job once, as SIGTERM, whether the head or this machine's agent got them; the ranks save and
exit by themselves with 75 (`megatron.stopping`), and only after the grace period are they killed. Ranks that have not begun yet have nothing
to save and end at once. Where ranks talk with a person, a Ctrl-C that the head got reaches them as it is, each time. A head that hangs up
(deepy.py was killed) is such a signal, too; one that falls silent takes the network with it, so the ranks are killed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

from megatron.errors import LaunchError
from megatron.launcher.addresses import LOOPBACK
from megatron.launcher.agent.network import open_port
from megatron.launcher.agent.options import TOKEN_VARIABLE, AgentOptions, parse_agent_options
from megatron.launcher.agent.ranks import Ranks
from megatron.launcher.agent.work import Work
from megatron.launcher.children import end_children, start_child
from megatron.launcher.connection import Beats, Connection, Message, connect
from megatron.launcher.devices import count_devices
from megatron.log import keep_output_harmless
from megatron.stopping import POLITE_SIGNALS

POLL_SECONDS = 0.05
ATTEMPT_SECONDS = 3.0
"""Patience with each address of the head."""
SEARCH_SECONDS = 60.0
"""How long the agent looks for a head that has started it."""
PATIENT_SEARCH_SECONDS = 600.0
"""How long it looks for one that is started by itself, on another machine."""


def main() -> int:
    """Run one machine's part of a job; returns the exit status.

    That is 0 when the head knows how it ended, well or badly: programs that start agents (mpirun, srun) then have nothing to say.
    """
    options = parse_agent_options()
    keep_output_harmless()
    agent = Agent(options)
    agent.listen_to_signals()
    try:
        return agent.run()
    except LaunchError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        agent.leave()


class Agent:
    """The agent. run: to the end of the job."""

    def __init__(self, options: AgentOptions) -> None:
        self._options = options
        self._ranks = Ranks(grace_seconds=0.0)
        self._store: subprocess.Popen[bytes] | None = None
        self._beats = Beats()
        self._devices = 0
        self._telling = False
        self._stop: int | None = None
        self._notices = 0
        self._told_stop = False
        self._hung_up = False
        self._status: int | None = None
        self._link: Connection | None = None

    def run(self) -> int:
        """Connect, and do what the head says until it says that the job is over. Raises LaunchError when the head is not to be found."""
        self._devices = count_devices()
        self._link = link = self._find_head()
        if link is None:
            return 0
        with selectors.DefaultSelector() as selector:
            selector.register(link, selectors.EVENT_READ)
            while self._status is None:
                if selector.select(POLL_SECONDS) or link.closed:
                    for message in link.read() if not link.closed else ():
                        self._obey(message)
                    if link.closed and not self._hung_up:
                        selector.unregister(link)
                        self._lose_head()
                if link.silence > self._options.node_timeout and not self._hung_up:
                    self._ranks.kill()
                    self._say_lost(f"has not been heard for {link.silence:.0f} s: that machine or the network is down")
                    if self._options.ends_parent:
                        end_parent()
                    return 1
                self._pass_signals_on()
                self._watch()
        return self._status

    def listen_to_signals(self) -> None:
        """From now on signals to this process are noted; what starts agents has them wait until now."""

        def on_stop(number: int, _: FrameType | None) -> None:
            self._stop = self._stop or number

        def on_notice(_: int, __: FrameType | None) -> None:
            self._notices += 1

        for number in (*POLITE_SIGNALS, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` asked to live on
                signal.signal(number, on_stop)
        signal.signal(signal.SIGUSR2, on_notice)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*POLITE_SIGNALS, signal.SIGHUP))

    def leave(self) -> None:
        """Nothing of ours is left when this returns."""
        self._ranks.kill_if_running()
        self._ranks.finish_logs()
        self._ranks.close()
        self._close_store()
        self._beats.end()
        if self._link is not None:
            self._link.close()

    def _find_head(self) -> Connection | None:
        """The connection to the head, which has been greeted; None when we were asked to stop before."""
        options = self._options
        deadline = time.monotonic() + (PATIENT_SEARCH_SECONDS if options.conclude else SEARCH_SECONDS)
        while self._stop is None:
            link = connect(options.addresses, options.port, seconds=ATTEMPT_SECONDS)
            if link is not None:
                self._greet(link)
                return link
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"{os.uname().nodename} cannot reach deepy.py at {' or '.join(options.addresses)} port {options.port}: the machines of a job "
                    "must be able to connect to the one that deepy.py runs on (check the firewall)"
                )
            time.sleep(POLL_SECONDS)
        return None

    def _greet(self, link: Connection) -> None:
        link.trusted = True
        self._beats.add(link)
        self._beats.begin()
        number = os.environ.get(self._options.number_from or "")
        name = self._options.node or os.environ.get(self._options.node_from or "")
        link.send(
            "hello",
            token=os.environ.get(TOKEN_VARIABLE, ""),
            node=name,
            number=int(number) if number and number.isdecimal() else None,
            machine=os.uname().nodename,
            address=link.own_address,
            devices=self._devices,
            process=os.getpid(),
        )

    def _obey(self, message: Message) -> None:
        """Do what the head says."""
        match message["kind"]:
            case "open_store":
                self._attempt(lambda: self._open_store(message))
            case "start":
                self._attempt(lambda: self._start(Work.from_message(message)))
            case "stop":
                self._told_stop = True
                self._stop_ranks(int(message["number"]))
            case "notice":
                self._ranks.forward(signal.SIGUSR2)
            case "interrupt":
                self._ranks.forward(signal.SIGINT)
            case "end":
                self._ranks.end(patience=float(message["patience"]))
            case "kill":
                self._ranks.abandon()
            case "exit":
                self._status = 0
                if self._options.conclude:
                    sys.stderr.write(str(message["text"]))
                    self._status = int(message["status"])
            case _:  # of a newer head
                pass

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do it, or tell the head why not."""
        try:
            action()
        except (LaunchError, OSError) as error:
            self._tell("ended", error=str(error))

    def _open_store(self, message: Message) -> None:
        """Open the port where the ranks will meet, and have a process serve it. The ranks may start at once: the port is open already."""
        self._close_store()
        several = bool(message["several"])
        listener = open_port(int(message["port"]), address="" if several else LOOPBACK, fixed=bool(message["fixed"]))
        port = int(listener.getsockname()[1])
        self._store = start_child(
            [sys.executable, "-m", "megatron.launcher.agent.store", str(listener.fileno()), str(port)],
            {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"},
            death_signal=signal.SIGKILL,
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )
        listener.close()
        self._tell("store", port=port)

    def _close_store(self) -> None:
        if self._store is not None:
            if self._store.stdin is not None:
                self._store.stdin.close()
            end_children([self._store], patience=0.0)
            self._store = None

    def _start(self, work: Work) -> None:
        if self._stop is not None or self._told_stop:  # the signal and this message have crossed
            self._tell("ended", succeeded=False)  # and nothing of the ranks of an attempt before
            return
        work.enter()
        self._ranks.grace_seconds = work.grace_seconds
        link = self._link
        assert link is not None
        environments = work.environments(os.environ, devices=self._devices, own_address=link.own_address)
        # A Ctrl-C waits until the interpreter of a rank has started; see worker.py.
        held_back = (signal.SIGINT,) if work.interactive else ()
        self._ranks.start(work.script, work.arguments, environments, logs=work.logs(), held_back=held_back)
        self._telling = True

    def _watch(self) -> None:
        """Tell the head as soon as the ranks have ended."""
        ranks = self._ranks
        if not self._telling:
            if self._hung_up:
                self._status = int(self._options.conclude)
            return
        if ranks.any_failed():
            self._tell("trouble")
            ranks.end()
        elif not ranks.all_succeeded():
            return
        self._telling = False
        ranks.finish_logs()
        self._tell_end()

    def _tell_end(self) -> None:
        ranks = self._ranks
        self._tell(
            "ended",
            succeeded=ranks.all_succeeded(),
            stopped=ranks.any_stopped(),
            failures=[failure.to_message() for failure in ranks.failures()],
            overdue=ranks.overdue,
            abandoned=ranks.abandoned,
            report=ranks.report(),
            now=time.time(),
        )

    def _pass_signals_on(self) -> None:
        """Signals that came to this process: the ranks get them at once, and the head is told, so that those of other machines get them, too."""
        if self._notices:
            self._notices = 0
            self._ranks.forward(signal.SIGUSR2)
        if self._stop is not None and not self._told_stop:
            self._told_stop = True
            self._tell("signal", number=self._stop)
            self._stop_ranks(self._stop)

    def _stop_ranks(self, number: int) -> None:
        self._ranks.stop(signal.SIGTERM if number == signal.SIGHUP else number)

    def _lose_head(self) -> None:
        """The head hung up without a farewell, so deepy.py was killed: the ranks save and stop."""
        self._hung_up = True
        self._say_lost("has ended without a word: it was killed")
        self._stop_ranks(signal.SIGTERM)

    def _say_lost(self, why: str) -> None:
        """Where nobody else can tell why the job ended."""
        if self._options.conclude:
            sys.stderr.write(f"error: the deepy.py of the first machine ({self._options.addresses[0]}) {why}\n")

    def _tell(self, kind: str, **content: object) -> None:
        if self._link is not None:
            self._link.send(kind, **content)


def end_parent() -> None:
    """End the process that has started this one, unless that is gone and the first process of the machine has taken its place."""
    if os.getppid() != 1:
        with contextlib.suppress(OSError):
            os.kill(os.getppid(), signal.SIGKILL)
