"""What this machine lacks for a cluster, in words for the reason of a skipped test."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

HOSTS = {"ip": "iproute2", "ss": "iproute2", "ping": "iputils-ping", "ssh": "openssh-client", "sshd": "openssh-server"}
"""Programs every cluster needs: the Debian package of each."""
LAUNCHERS = {
    "pdsh": {"pdsh": "pdsh"},
    "openmpi": {"mpirun.openmpi": "openmpi-bin"},
    "mpich": {"mpiexec.hydra": "mpich"},
    "slurm": {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "srun": "slurm-wlm", "munged": "munge"},
}
"""Programs a launcher needs beyond them."""
LAUNCHERS["mvapich"] = LAUNCHERS["mpich"]  # it stands for it: see fakes
WHERE = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing_program(launcher: str | None = None) -> str | None:
    """What has to be installed for the hosts (None) or for a launcher; None when nothing is missing."""
    if launcher == "impi" and intel_mpi() is None:
        return "Intel MPI is not here: pip install --prefix DIRECTORY impi-rt, and set I_MPI_ROOT to that directory"
    needed = HOSTS if launcher is None else LAUNCHERS.get(launcher, {})
    missing = {package for program, package in needed.items() if shutil.which(program, path=WHERE) is None}
    return f"not installed: apt-get install {' '.join(sorted(missing))}" if missing else None


def intel_mpi() -> Path | None:
    """The directory of Intel MPI's programs, where I_MPI_ROOT has them."""
    directory = Path(os.environ.get("I_MPI_ROOT", "/nowhere")) / "bin"
    return directory if os.access(directory / "mpiexec.hydra", os.X_OK) else None


@cache
def obstacle() -> str | None:
    """Why hosts cannot be made here; None when they can."""
    if os.geteuid() != 0:
        return "hosts of their own networks are made by root"
    if missing := missing_program():
        return missing
    link = "ip link add name bridge type bridge && ip link add name one type veth peer name two"
    spaces = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*spaces, "sh", "-c", link], capture_output=True, text=True, check=False)
    return f"no hosts can be made here: {tried.stderr.strip()}" if tried.returncode else None
