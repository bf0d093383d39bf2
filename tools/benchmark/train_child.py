"""One way to train in a process of its own: builds it when it is started, and takes steps when it is told to.

Reads JSON lines from its standard input and answers each with one on its standard output; whatever else is written goes to the standard
error. The first line is the job (`Job`), every other one `{"steps": n}`. An answer with "failed" is the last one.
"""

from __future__ import annotations

import sys
from pathlib import Path

# In place of this script's directory, in which tokenize.py would hide the module of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import contextlib
import os

from tools.benchmark.train_job import serve


def main() -> None:
    """Serve the parent until it closes the pipe."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin, answers)
    os._exit(0)  # nothing is worth the seconds in which libraries say goodbye


if __name__ == "__main__":
    main()
