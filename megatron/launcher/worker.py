"""The frame around a rank's `main`: its place among the ranks, its log, and its error, which is told once in the whole job."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

from megatron.environment import RankEnvironment, note_start, rank_defaults, read_rank_environment
from megatron.errors import NeoXError
from megatron.launcher.devices import count_devices
from megatron.launcher.failure import ERROR_FILE_VARIABLE, EXIT_INTERRUPTED, write_error_record
from megatron.log import configure_logging, keep_output_harmless

READY_VARIABLE = "NEOX_RANK_DEFAULTS"
"""Set for ranks whose environment the agent has prepared already."""


def run_worker(main: Callable[[], int | None]) -> None:
    """Run `main` as one rank, however it was started (deepy.py, torchrun, srun, mpirun, or nothing), and exit with the status it returns.

    Sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT and the logging of this rank first. An error is left in a file
    for the agent to print when there is an agent, and printed here otherwise. Call it before torch is imported, and nothing after
    it: it does not return.
    """
    place, status = RankEnvironment(), 0
    try:
        place = _enter()
        status = main() or 0
    except KeyboardInterrupt:
        _leave(EXIT_INTERRUPTED)
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            _leave(leaving.code if isinstance(leaving.code, int) else _report(NeoXError(str(leaving.code)), place))
    except Exception as error:
        here = error.__traceback__  # this frame, which tells the user nothing
        _leave(_report(error.with_traceback(here.tb_next if here else None), place))
    atexit._run_exitfuncs()  # loader processes are ended there
    _leave(status)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Around a worker's imports: what they make stays as long as the process, so the garbage collector need never look at it.

    That saves a start a tenth of its processor time, and every later collection most of its.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _enter() -> RankEnvironment:
    # A KeyboardInterrupt in the middle of importing torch is a traceback, or is lost: until someone listens, Ctrl-C just ends us.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The agent has one that came earlier wait until now, where the ranks talk with a person.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    # SIGUSR2 to deepy.py reaches every rank: where each one is goes into its log, and the run goes on.
    with contextlib.suppress(RuntimeError, OSError, ValueError):  # nowhere to write to
        faulthandler.register(signal.SIGUSR2, all_threads=True)
    place = read_rank_environment()
    place.export()
    note_start()
    if READY_VARIABLE not in os.environ:
        accelerators = count_devices() > 0
        os.environ.update(rank_defaults(local_world_size=place.local_world_size, accelerators=accelerators))
    keep_output_harmless()
    configure_logging(place.rank)
    return place


def _report(error: Exception, place: RankEnvironment) -> int:
    """Leave the error for the agent, or print it when there is none. Returns the exit code."""
    path = os.environ.get(ERROR_FILE_VARIABLE)
    if path:
        with contextlib.suppress(OSError):
            write_error_record(path, error)
            return 1
    where = f" (rank {place.rank})" if place.world_size > 1 else ""
    if isinstance(error, NeoXError):
        sys.stderr.write(f"error{where}: {error}\n")
    else:
        sys.stderr.write(f"error{where}:\n{''.join(traceback.format_exception(error))}")
    return 1


def _leave(code: int) -> None:
    """End this process now, without taking the interpreter apart.

    After a failure that could wait for ever: for threads, for loader processes, for a collective nobody joins. After a success gloo's
    threads may still be giving tensors back, which aborts the process once the interpreter is being taken apart.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
