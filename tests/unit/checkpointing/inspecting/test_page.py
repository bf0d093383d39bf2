"""What a checkpoint says of itself, read without its tensors, as lines and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from megatron.checkpointing.digest import logical_sha256
from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.inspecting.contents import Contents, read_contents
from megatron.checkpointing.inspecting.lines import Line
from megatron.checkpointing.inspecting.listing import list_directory, listing_lines
from megatron.checkpointing.inspecting.measuring import measure_all
from megatron.checkpointing.inspecting.page import (
    NOT_SAID,
    data_lines,
    provenance_lines,
    settings_lines,
    source_text,
    total_lines,
)
from megatron.checkpointing.inspecting.report import inspection_report, listing_report, to_json
from megatron.checkpointing.inspecting.verifying import problems_of
from megatron.checkpointing.saving.source_version import source_version
from megatron.checkpointing.state_file import STATE
from tests.unit.checkpointing.inspecting.saved import PARAMETERS, damage, random_values, save_run


def text(lines: Iterable[Line]) -> str:
    return "\n".join("".join(piece for piece, _ in line).rstrip() for line in lines)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return read_contents(save_run(tmp_path_factory.mktemp("saved")))


def test_where_a_checkpoint_is_from(contents: Contents) -> None:
    assert contents.saved_at is not None
    said = text(provenance_lines(contents, now=contents.saved_at + timedelta(hours=3)))
    assert "UTC, 3.0 hours ago, by 1 process, pipeline 1 x data 2 x tensor 1, ZeRO stage" in said
    assert "counters   consumed_samples 24, recent_losses [2.5, 2.25]" in said
    assert "scalars    step 7, loss_scale 0.1" in said
    source = source_version()
    assert source is None or f"commit {source['commit']}" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, NOT_SAID),
        ({"source": None}, "no git repository"),
        ({"source": {"commit": "abc", "dirty": False}}, "commit abc"),
        ({"source": {"commit": "abc", "dirty": True}}, "commit abc with changes that are not committed"),
    ],
)
def test_the_source_may_be_known_or_not(content: dict[str, object], said: str) -> None:
    assert source_text(content) == said


def test_what_it_was_trained_on(contents: Contents) -> None:
    assert text(data_lines(contents)).splitlines()[1:] == [
        "  steps 1 to 3  sequences of 32, packed, seed 1234",
        "                /data/text_document: 24 samples, 768 tokens, 0.1536 epochs",
    ]
    assert NOT_SAID in text(data_lines(replace(contents, ledger=None)))


def test_settings_with_their_origins(contents: Contents) -> None:
    lines = [line.split() for line in text(settings_lines(contents)).splitlines()]
    assert ["num_layers", "4", "configs/small.yml:3:1"] in lines
    assert ["seed", "7", "command", "line"] in lines
    assert "not recorded" in text(settings_lines(replace(contents, settings=None)))


def test_totals_are_those_of_the_values_and_of_the_files(contents: Contents) -> None:
    elements = sum(math.prod(shape) for shape in PARAMETERS.values())
    assert contents.value_bytes == 3 * 4 * elements
    assert contents.size == sum(path.stat().st_size for path in contents.path.rglob("*") if path.is_file())
    said = text(total_lines(contents, "f00d"))
    assert f"parameters   {elements} in 5 tensors" in said
    assert f"weights {4 * elements:,} bytes, optimizer state {8 * elements:,} bytes" in said
    assert "logical sha  f00d" in said


def test_the_report_has_everything_in_strict_json(contents: Contents) -> None:
    measured, digest = measure_all(contents, with_digest=True)
    assert digest == logical_sha256(contents.path)
    report = json.loads(to_json(inspection_report(contents, measured, digest)))
    assert report["tensors"].keys() == random_values().keys()
    tensor = report["tensors"]["2.attention.dense.weight/exp_avg"]
    assert (tensor["shape"], tensor["dtype"], tensor["zeros"]) == ([7, 7], "float32", 0)
    norm = float(random_values()["2.attention.dense.weight/exp_avg"].double().norm())
    assert tensor["norm"] == pytest.approx(norm, rel=1e-12)
    assert report["origins"]["seed"] == "command line"
    assert report["data"]["segments"][0]["sources"][0]["reached"]["tokens"] == 768
    assert (report["logical_sha256"], report["source"]) == (digest, source_version())
    assert to_json({"a": [math.nan, (math.inf, 1.5)]}) == '{"a": [null, [null, 1.5]]}'


def test_a_ledger_of_a_newer_version_does_not_hide_the_rest(tmp_path: Path) -> None:
    checkpoint = save_run(tmp_path)
    (checkpoint / "data.json").write_text('{"format": 99}')
    assert "install a newer version" in text(data_lines(read_contents(checkpoint)))


def test_a_dtype_that_is_none_is_told(tmp_path: Path) -> None:
    checkpoint = save_run(tmp_path)
    content = (checkpoint / STATE).read_text().replace('"float32"', '"float31"', 1)
    (checkpoint / STATE).write_text(content)
    with pytest.raises(DamagedCheckpoint, match="float31"):
        read_contents(checkpoint)


def test_a_directory_lists_its_checkpoints_and_what_is_wrong(tmp_path: Path) -> None:
    paths = [save_run(tmp_path, iteration=iteration) for iteration in (3, 20, 100)]
    (paths[1] / STATE).unlink()
    listing = list_directory(tmp_path)
    assert [(one.iteration, one.is_latest, bool(one.problem)) for one in listing.checkpoints] == [
        (3, False, False),
        (20, False, True),
        (100, True, False),
    ]
    now = listing.checkpoints[0].saved_at
    assert now is not None
    lines = text(listing_lines(listing, chosen=paths[2], now=now + timedelta(days=4))).splitlines()
    assert lines[2].endswith("4.0 days ago  complete")
    assert lines[3].endswith(f"{paths[1] / STATE} is missing")
    assert lines[4].startswith("  ->  100 (latest)")
    (report, broken, _) = listing_report(listing)
    assert (report["size"], report["problem"]) == (read_contents(paths[0]).size, "")
    assert (broken["size"], broken["saved_at"]) == (None, None)
    (tmp_path / "latest").unlink()
    assert f"{tmp_path / 'latest'} is missing" in text(listing_lines(list_directory(tmp_path), chosen=None, now=now))


def test_every_file_that_is_not_as_it_was_is_named(tmp_path: Path) -> None:
    checkpoint = save_run(tmp_path)
    assert list(problems_of(checkpoint)) == []
    damaged = damage(checkpoint)
    (checkpoint / "data.json").unlink()
    (checkpoint / STATE).write_bytes(b"{}")
    found = sorted(problems_of(checkpoint))
    assert [problem.split()[0] for problem in found] == [
        str(path) for path in sorted([damaged, checkpoint / "data.json", checkpoint / STATE])
    ]
    assert "SHA-256" in found[0]
    (checkpoint / "manifest.json").unlink()
    assert "it has no manifest.json" in "".join(problems_of(checkpoint))
