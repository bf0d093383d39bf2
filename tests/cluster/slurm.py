"""A Slurm cluster: the controller on the first host, a daemon that runs jobs on each, and munge, by which they know each other."""

from __future__ import annotations

import os
import secrets

from tests.cluster.hosts import Hosts
from tests.cluster.patience import wait_until

NODES = ("h1", "h2")
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool_%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=300
KillWait=2
UnkillableStepTimeout=15
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def start_slurm(hosts: Hosts) -> None:
    """Start munge, the controller and the nodes' daemons; returns when every node waits for jobs."""
    directory = hosts.directory / "slurm"  # the hosts' /etc/slurm
    nodes = [hosts[name] for name in NODES]
    lines = [f"NodeName={node.name} NodeAddr={node.address} CPUs=2 State=UNKNOWN" for node in nodes]
    text = CONFIGURATION.format(controller=f"h1({nodes[0].address})", directory=directory, nodes="\n".join(lines))
    (directory / "slurm.conf").write_text(text)
    key = directory / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    for node in nodes:
        (directory / f"spool_{node.name}").mkdir()
        node.must("mkdir", "-p", "-m", "755", "/run/munge")
        files = [f"--{kind}-file=/run/munge/{kind}" for kind in ("pid", "log", "seed")]
        node.must("/usr/sbin/munged", "--force", f"--key-file={key}", *files)
    (directory / "state").mkdir()
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    nodes[0].must("/usr/sbin/slurmctld", env=quiet)
    for node in nodes:
        node.must("/usr/sbin/slurmd", env=quiet)
    wait_until(lambda: idle(hosts), what="idle nodes")


def idle(hosts: Hosts) -> bool:
    """Whether every node of the cluster can take a job, and has none."""
    states = hosts["h1"].run("timeout", "5", "sinfo", "--noheader", "--Node", "--format=%t").stdout.split()
    return states == ["idle"] * len(NODES)
