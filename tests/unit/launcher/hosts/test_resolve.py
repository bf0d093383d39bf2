"""From the launcher keys to hosts and slots."""

from __future__ import annotations

import pytest

from megatron.errors import ConfigError
from megatron.launcher.base import Host
from megatron.launcher.hosts.resolve import describe_hosts, is_this_machine, resolve_hosts
from megatron.neox_arguments.keys.runner import RunnerArgs


def resolve(*, devices: int = 0, environment: dict[str, str] | None = None, **keys):
    args = RunnerArgs.model_construct(
        **{
            "hostfile": None,
            "include": None,
            "exclude": None,
            "num_nodes": -1,
            "num_gpus": None,
            "launcher": None,
            **keys,
        }
    )
    return resolve_hosts(args, environment=environment or {}, devices=lambda: devices)


@pytest.fixture
def hostfile(tmp_path):
    path = tmp_path / "hostfile"
    path.write_text("a slots=4\nb slots=4\nc slots=4\n")
    return str(path)


def test_without_a_hostfile_this_machine_is_used_with_a_process_per_device():
    assert resolve(devices=4) == (Host("localhost", (0, 1, 2, 3)),)


def test_a_machine_without_devices_runs_one_cpu_process_or_as_many_as_asked():
    assert resolve() == (Host("localhost", (0,)),)
    assert resolve(num_gpus=3) == (Host("localhost", (0, 1, 2)),)


def test_more_processes_than_devices_are_refused_with_the_way_to_the_cpu():
    with pytest.raises(
        ConfigError,
        match=r'num_gpus: this machine shows 2 accelerators; set it to 2 or less, .*CUDA_VISIBLE_DEVICES=""',
    ):
        resolve(devices=2, num_gpus=3)


def test_single_devices_of_this_machine_can_be_chosen():
    assert resolve(devices=4, include="localhost:1,3") == (Host("localhost", (1, 3)),)


def test_num_nodes_and_num_gpus_cut_the_hostfile(hostfile):
    assert resolve(hostfile=hostfile, num_nodes=2, num_gpus=3) == (Host("a", (0, 1, 2)), Host("b", (0, 1, 2)))


def test_the_environment_may_name_the_hostfile_and_the_config_wins(hostfile, tmp_path):
    other = tmp_path / "other"
    other.write_text("z slots=1\n")
    environment = {"DLTS_HOSTFILE": hostfile}
    assert len(resolve(environment=environment)) == 3
    assert resolve(environment=environment, hostfile=str(other)) == (Host("z", (0,)),)


def test_filters_come_before_num_nodes(hostfile):
    assert resolve(hostfile=hostfile, exclude="a", num_nodes=1) == (Host("b", (0, 1, 2, 3)),)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_nodes": 4}, "there are 3 hosts"),
        ({"num_gpus": 5}, 'host "a" has 4 slots'),
        ({"include": "a", "exclude": "b"}, "only one of the two"),
    ],
)
def test_keys_that_ask_for_more_than_there_is(hostfile, keys, message):
    with pytest.raises(ConfigError, match=message):
        resolve(hostfile=hostfile, **keys)


def test_this_machine_is_known_by_its_names(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "gpu1.cluster")
    assert all(is_this_machine(Host(name, (0,))) for name in ("localhost", "127.0.0.1", "gpu1", "gpu1.cluster"))
    assert not is_this_machine(Host("gpu2", (0,)))


SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_GPUS_ON_NODE": "4"}


def test_an_allocation_is_a_hostfile_for_launchers_that_reach_other_machines():
    slots = (0, 1, 2, 3)
    assert resolve(launcher="slurm", environment=SLURM) == (Host("n1", slots), Host("n2", slots), Host("n3", slots))
    assert resolve(launcher="pdsh", environment=SLURM, exclude="n2", num_nodes=1) == (Host("n1", slots),)
    assert resolve(launcher="slurm", environment=SLURM, num_gpus=8, include="n3") == (Host("n3", tuple(range(8))),)
    assert resolve(launcher="local", environment=SLURM) == (Host("localhost", (0,)),)
    assert resolve(launcher="pdsh") == (Host("localhost", (0,)),)


def test_the_hosts_of_lsf_have_a_slot_for_each_device_of_this_machine():
    environment = {"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "batch 1 a 42 b 42"}
    assert resolve(launcher="jsrun", environment=environment, devices=2) == (Host("a", (0, 1)), Host("b", (0, 1)))


def test_a_hostfile_comes_before_the_allocation(hostfile):
    assert resolve(launcher="slurm", environment=SLURM, hostfile=hostfile)[0] == Host("a", (0, 1, 2, 3))


def test_more_nodes_than_the_allocation_has_are_refused():
    with pytest.raises(ConfigError, match="there are 3 hosts; lower num_nodes, or ask the scheduler for more machines"):
        resolve(launcher="slurm", environment=SLURM, num_nodes=4)


def test_torchruns_machines_come_from_its_variables():
    environment = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "first"}
    assert resolve(launcher="torchrun", environment=environment, devices=2) == (
        Host("node0", (0, 1)),
        Host("node1", (0, 1)),
    )


def test_the_hosts_are_told_in_a_line_with_their_source(hostfile):
    def line(hosts, environment=SLURM, **keys):
        args = RunnerArgs.model_construct(**{"hostfile": None, "num_gpus": None, "launcher": "slurm", **keys})
        return describe_hosts(args, hosts, environment=environment)

    n1, n2 = Host("n1", (0, 1)), Host("n2", (0, 1, 2))
    assert line([n1]) == "hosts: n1 with 2 slots (from SLURM_JOB_NODELIST)"
    assert line([n1, n1]) == "hosts: n1, n1 with 2 slots each (from SLURM_JOB_NODELIST)"
    assert line([n1, n2], hostfile=hostfile) == f"hosts: n1, n2 with 2 to 3 slots each (from {hostfile})"
    assert line([n1] * 20).endswith("n1, 12 more with 2 slots each (from SLURM_JOB_NODELIST)")
    assert line([n1], environment={}) is None
