"""Reads back what the writers of Weights & Biases and Comet leave on disk when they are offline."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
FULL, LAST = 1, 4


@dataclass
class Recording:
    """One run: metrics by step, configuration, and the exit code when the run was finished."""

    id: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def wandb_recordings(directory: Path) -> list[Recording]:
    """The W&B runs recorded below `directory`, the oldest first."""
    return [_wandb_recording(path) for path in sorted(directory.rglob("run-*.wandb"), key=lambda p: p.stat().st_mtime)]


def _wandb_recording(path: Path) -> Recording:
    from wandb.proto.wandb_internal_pb2 import Record

    recording = Recording()
    for content in _log_entries(path.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            recording.id, recording.project = record.run.run_id, record.run.project
            recording.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            values = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            step = recording.metrics.setdefault(int(values["_step"]), {})
            step |= {name: json.loads(value) for name, value in values.items() if not name.startswith("_")}
        elif kind == "exit":
            recording.exit_code = record.exit.exit_code
    return recording


def _log_entries(data: bytes) -> Iterator[bytes]:
    """The entries of a LevelDB log: pieces of (checksum u32, length u16, kind u8, content), none across the end of a block."""
    position, entry = 7, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        entry += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (FULL, LAST):
            yield entry
            entry = b""


def comet_recordings(directory: Path) -> list[Recording]:
    """The Comet experiments archived in `directory`, the oldest first."""
    return [_comet_recording(path) for path in sorted(directory.glob("*.zip"), key=lambda p: p.stat().st_mtime)]


def _comet_recording(path: Path) -> Recording:
    with zipfile.ZipFile(path) as archive:
        messages = [json.loads(line) for line in archive.read("messages.json").splitlines()]
        description = json.loads(archive.read("experiment.json"))
    recording = Recording(id=description["offline_id"], project=description["project_name"])
    recording.others["tags"] = description.get("tags")
    for message in messages:
        payload, kind = message["payload"], message["type"]
        if kind == "metric_msg" and not payload["metric"]["metricName"].startswith("sys."):
            metric = payload["metric"]
            recording.metrics.setdefault(metric["step"], {})[metric["metricName"]] = metric["metricValue"]
        elif kind == "parameter_msg":
            parameter = payload.get("param") or payload.get("params")
            recording.config[parameter["paramName"]] = parameter["paramValue"]
        elif kind == "log_other":
            recording.others[payload["key"]] = payload["value"]
    return recording
