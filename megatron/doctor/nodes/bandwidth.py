"""The test of collective operations as a job: every slot of every machine takes part."""

from __future__ import annotations

from collections.abc import Sequence

from megatron.doctor.facts.bandwidth import Bandwidth
from megatron.doctor.nodes.jobs import Clinic, reason_of
from megatron.launcher.base import Host

SCRIPT = "collectives.py"


def measure_bandwidth(clinic: Clinic, hosts: Sequence[Host]) -> tuple[Bandwidth | None, str]:
    """(what was measured, why it was not). Raises NeoXError when the launcher cannot start anything at all."""
    outcome = clinic.run(SCRIPT, hosts, {})
    if outcome.status or outcome.report is None:
        return None, reason_of(outcome)
    return Bandwidth.from_json(outcome.report), ""
