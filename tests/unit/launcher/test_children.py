"""What our children leave behind is ended; what this process had before is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from megatron.launcher.children import Orphans

LEAVE_TWO = """
import subprocess, sys
code = "import subprocess, sys, time; child = subprocess.Popen(['sleep', '60']); open(sys.argv[1], 'w').write(str(child.pid)); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", code, sys.argv[1]], start_new_session=True)
"""


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def leave_two(file: Path) -> tuple[int, int]:
    """A process that has lost its parent, and one that it has started; they run."""
    subprocess.run([sys.executable, "-c", LEAVE_TWO, str(file)], check=True)
    end = time.monotonic() + 20
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    grandchild = int(file.read_text())
    middle = parent(grandchild)
    assert middle is not None
    return middle, grandchild


def test_orphans_of_orphans_are_ended_and_other_children_are_not(tmp_path):
    before = subprocess.Popen(["sleep", "60"])
    orphans = Orphans()
    orphans.adopt()
    middle, grandchild = leave_two(tmp_path / "pid")
    assert parent(middle) == os.getpid(), "it has come to us"
    orphans.end()
    assert (parent(grandchild), parent(middle)) == (None, None), "gone, and not even a zombie is left"
    assert before.poll() is None
    before.kill()
    before.wait()


def test_nothing_comes_to_us_after_the_end(tmp_path):
    orphans = Orphans()
    orphans.adopt()
    orphans.end()
    middle, grandchild = leave_two(tmp_path / "pid")
    assert parent(middle) != os.getpid()
    os.kill(middle, 9)
    os.kill(grandchild, 9)


def test_ending_without_having_begun_is_nothing():
    Orphans().end()
