"""What is printed of an examination."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron.cli.doctor_report import record, report_lines, verdict_of
from megatron.doctor.examination import Examination
from megatron.doctor.findings import Finding, Section
from megatron.doctor.given import understand
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.text import WIDTH
from tests.unit.doctor.builders import MACHINE, TORCH, node
from tests.unit.planning.builders import config

SECTIONS = (
    Section("This machine", [Finding("Python", "ok", "3.12.3"), Finding("GPUs", "absent", "none here")]),
    Section(
        "2 machines",
        [Finding("b", "failure", "could not be examined: " + "no route to host " * 8, "mend that")],
        [["machine", "slots"], ["a", "8"], ["b", "16"]],
        right=(1,),
    ),
)
EXAMINATION = Examination(SECTIONS, MACHINE, TORCH, [node("a")])


def test_a_report_is_one_table_of_lines_that_fit_the_page() -> None:
    lines = ["".join(text for text, _ in line) for line in report_lines("this machine", SECTIONS)]
    assert lines == [
        "Doctor for this machine",
        "",
        "This machine",
        "  ok       Python  3.12.3",
        "  -        GPUs    none here",
        "",
        "2 machines",
        "  machine  slots",
        "  a            8",
        "  b           16",
        "  failure  b       could not be examined: no route to host no route to host no route to host no",
        "                   route to host no route to host no route to host no route to host no route to host",
        "                   fix: mend that",
        "",
        "1 ok, 1 failure",
    ]
    assert max(map(len, lines)) <= WIDTH


def test_colours_say_how_grave_a_finding_is() -> None:
    styles = {text: style for line in report_lines("x", SECTIONS) for text, style in line}
    assert (styles["ok"], styles["failure"], styles["1 ok, 1 failure"]) == ("green", "bold red", "bold red")


def test_json_has_the_findings_and_the_facts_behind_them() -> None:
    told = json.loads(record(["hostfile=x"], EXAMINATION))
    assert (told["words"], told["verdict"]) == (["hostfile=x"], verdict_of(EXAMINATION))
    assert told["sections"][0]["findings"][1] == {"subject": "GPUs", "level": "absent", "text": "none here", "fix": ""}
    assert told["facts"]["machine"]["packages"]["torch"] == "2.13.0"
    assert told["facts"]["nodes"][0]["facts"]["machine"]["host"] == "a"
    assert told["facts"]["bandwidth"] is None


def test_what_is_absent_is_no_verdict_of_its_own() -> None:
    assert verdict_of(EXAMINATION) == "failure"
    assert verdict_of(Examination(SECTIONS[:1], MACHINE, TORCH)) == "ok"


def test_a_config_that_train_refuses_is_examined_as_far_as_it_goes() -> None:
    given = understand(config(data_path="nowhere", num_gpus=2, vocab_file=None, tokenizer_type="HFTokenizer"))
    assert given.has_model
    assert given.args is not None
    assert [host.slots for host in given.hosts] == [(0, 1)]
    (problem,) = given.problems
    assert "tokenizer_type" in problem


def test_launcher_keys_alone_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLTS_HOSTFILE", raising=False)
    (tmp_path / "hosts").write_text("a slots=2\nb slots=3\n")
    given = understand(ConfigValues.from_dict({"hostfile": str(tmp_path / "hosts"), "max_restarts": 3}))
    assert not given.has_model
    assert given.args is not None
    assert given.args.launcher == "pdsh"
    assert [(host.name, len(host.slots)) for host in given.hosts] == [("a", 2), ("b", 3)]
    assert given.problems == ()


def test_launcher_keys_that_a_run_would_refuse_are_understood_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("a slots=2\nb slots=3\n")
    given = understand(ConfigValues.from_dict({"hostfile": str(tmp_path / "hosts"), "moe_num_experts": 4}))
    assert given.args is not None
    assert given.args.launcher == "pdsh"
    assert "moe_num_experts" in given.problems[0]


def test_a_mistake_in_the_hostfile_is_told(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("a slots=two\n")
    given = understand(ConfigValues.from_dict({"hostfile": str(tmp_path / "hosts")}))
    assert given.args is None
    assert "two" in given.problems[0]
