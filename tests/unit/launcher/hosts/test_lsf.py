"""What LSF's variables say about an allocation."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.errors import LaunchError
from megatron.launcher.hosts.lsf import allocated_hosts

JOB = {"LSB_JOBID": "7"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a1 42 a2 42", ("a1", "a2")),
        ("batch5 1 a1 42 a2 42", ("a1", "a2")),  # the job script's machine
        ("a1 1 a2 1", ("a1", "a2")),
        ("a1 1", ("a1",)),
        ("", ()),
    ],
)
def test_hosts_are_listed_with_their_slots(text: str, names: tuple[str, ...]) -> None:
    assert allocated_hosts({**JOB, "LSB_MCPU_HOSTS": text}) == names
    assert allocated_hosts({"LSB_MCPU_HOSTS": text}) == ()


def test_a_file_lists_the_hosts_of_large_jobs(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("batch5\na1\na1\na2\na2\n")
    assert allocated_hosts({**JOB, "LSB_DJOB_HOSTFILE": str(path)}) == ("a1", "a2")
    path.unlink()
    with pytest.raises(LaunchError, match="which LSB_DJOB_HOSTFILE names, cannot be read"):
        allocated_hosts({**JOB, "LSB_DJOB_HOSTFILE": str(path)})


@pytest.mark.parametrize("text", ["a1", "a1 two", "a1 1 a2"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(LaunchError, match="is no list of `HOST SLOTS`"):
        allocated_hosts({**JOB, "LSB_MCPU_HOSTS": text})
