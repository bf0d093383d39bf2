"""Lets the hosts log in to each other by ssh, as root and without a question, with keys made for this cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path

from megatron.launcher.devices import count_devices
from tests.cluster.hosts import Host, Hosts
from tests.cluster.patience import wait_until

SERVER = """\
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/key.pub
PermitRootLogin yes
StrictModes no
PasswordAuthentication no
UsePAM no
PidFile none
MaxStartups 100
SetEnv {variables}
"""
CLIENT = """\
Host *
  IdentityFile {directory}/key
  UserKnownHostsFile {directory}/known_hosts
  LogLevel ERROR
"""


# As many threads as the ranks of tests on one host have, for sums of the same order. A host of two namespaces shows the machine's devices.
VARIABLES = {"OMP_NUM_THREADS": "1", "TMPDIR": "/dev/shm"} | ({"CUDA_VISIBLE_DEVICES": ""} if count_devices() else {})
"""What is set for whoever comes in by ssh."""


def start_sshd(hosts: Hosts) -> None:
    """Start the server on every host; returns when all of them answer."""
    for key in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hosts.directory / key], check=True)
    # In place: the hosts have this very file in place of the machine's.
    (hosts.directory / "ssh_config").write_text(CLIENT.format(directory=hosts.directory))
    variables = " ".join(f'{name}="{value}"' for name, value in VARIABLES.items())
    (hosts.directory / "sshd_config").write_text(SERVER.format(directory=hosts.directory, variables=variables))
    public = (hosts.directory / "host_key.pub").read_text()
    (hosts.directory / "known_hosts").write_text("".join(f"{host.name},{host.address} {public}" for host in hosts))
    for host in hosts:
        start_on(hosts.directory, host)
    for host in hosts:
        wait_until(lambda host=host: listens(host, 22), what=f"sshd on {host.name}")


def start_on(directory: Path, host: Host) -> None:
    """Start the server on one host."""
    host.must("mkdir", "-p", "/run/sshd")
    host.must("/usr/sbin/sshd", "-f", directory / "sshd_config", "-E", directory / f"sshd_{host.name}.log")


def listens(host: Host, port: int) -> bool:
    """Whether anything on the host listens on a TCP port."""
    return bool(host.must("ss", "-Hltn", "sport", "=", f":{port}"))
