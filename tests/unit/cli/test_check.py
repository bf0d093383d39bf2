from __future__ import annotations

from pathlib import Path

import pytest

import deepy
from megatron.cli.check import main
from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls

MODEL = """{
  # sizes
  "num-layers": 4, "hidden-size": 64,
  "num-attention-heads": 4,
  "seq-length": 32,
  "save-interval": 10,
  "synchronize-each-layer": true,
  "gpt-j-residual": True,
  "train_micro_batch_size_per_gpu": 2,
  "train-iters": 100,
  "optimizer": {"type": "Adam", "params": {"lr": 6e-4,}},
}
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    return written(tmp_path, "model.yml", MODEL)


def written(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """The exit status, and the lines with runs of spaces as one."""
    status = main(words)
    return status, [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def section(lines: list[str], title: str) -> list[str]:
    """The lines under a title, up to the next empty line."""
    start = lines.index(title) + 1
    end = next((number for number in range(start, len(lines)) if not lines[number]), len(lines))
    return lines[start:end]


def test_every_key_is_told_in_file_order_with_its_place(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = check(capsys, model)
    assert status == 0
    assert lines[:5] == [
        f"{model}:3:3 same num_layers: 4",
        f"{model}:3:20 same hidden_size: 64",
        f"{model}:4:3 same num_attention_heads: 4",
        f"{model}:5:3 same seq_length: 32",
        f"{model}:6:3 renamed save_interval: 10 read as checkpoint_factor: 10; iterations between checkpoints",
    ]
    assert lines[5].startswith(f"{model}:7:3 without effect synchronize_each_layer: true ")
    assert lines[6].startswith(f"{model}:8:3 changed gpt_j_residual: true ")
    assert lines[-1] == "10 keys: 7 same, 1 without effect, 1 renamed, 1 changed"


def test_quiet_leaves_out_what_is_the_same(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = check(capsys, "-q", model)
    assert status == 0
    assert not [line for line in lines if " same " in line and line.startswith(model)]
    assert lines[0].startswith(f"{model}:6:3 renamed save_interval: 10 ")


def test_keys_that_fit_together_are_shown_with_their_layout(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = check(capsys, model, "model_parallel_size=2", "pipe_parallel_size=2")
    together = section(lines, "Together")
    assert together[0] == "the keys fit together:"
    assert together[1] == "4 processes = 2 pipeline stages x 1 data-parallel copy x 2 tensor ranks"


def test_what_a_run_needs_besides_is_told(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert section(check(capsys, model)[1], "Together")[-1] == "to train, give also data, vocab_file, merge_file"
    told = section(check(capsys, model, "data_path=a", "tokenizer_type=SPMTokenizer")[1], "Together")
    assert told[-1] == "to train, give also vocab_file"
    complete = ["data_path=a", "tokenizer_type=CharLevelTokenizer"]
    status, lines = check(capsys, model, *complete)
    assert status == 0
    assert not [line for line in lines if line.startswith("to train")]


def test_keys_that_do_not_fit_together_are_all_told(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = check(capsys, model, "num_kv_heads=3", "lr=1e-3", "min_lr=1")
    assert status == 1
    errors = [line for line in section(lines, "Together") if line.startswith("error: ")]
    assert len(errors) == 2
    assert '"num_kv_heads" is 3 (command line)' in errors[0]
    assert '"min_lr" is 1' in errors[1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("soft_prompt_tuning: {enabled: true}", "not built yet soft_prompt_tuning"),
        ("moe_type: deepspeed", 'unsupported moe_type: "deepspeed"'),
        ("nrom: layernorm", 'unknown nrom: "layernorm" did you mean "norm"?'),
        ("norm: rmsnrom", 'wrong norm: "rmsnrom"'),
    ],
)
def test_what_would_not_run_sets_the_exit_status(
    text: str, line: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = written(tmp_path, "other.yml", text)
    status, lines = check(capsys, model, other)
    assert status == 1
    assert [found for found in lines if found.startswith(f"{other}:1:1 {line}")]
    assert check(capsys, other)[0] == 1
    assert check(capsys, model)[0] == 0


def test_a_part_of_a_config_is_judged_key_by_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = written(tmp_path, "part.yml", "seed: 1\nlog-interval: 10\n")
    status, lines = check(capsys, part)
    assert status == 0
    assert section(lines, "Together") == [
        "not judged: these are parts of a config (num_layers, hidden_size, num_attention_heads, seq_length not given)"
    ]
    assert "Defaults that differ" not in lines


def test_overrides_between_files_are_told(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = written(tmp_path, "other.yml", "norm: rmsnrom\ncheckpoint_factor: 5\n")
    status, lines = check(capsys, model, other, "norm=rmsnorm")
    assert status == 0
    assert [
        line for line in lines if line.startswith(f"{other}:1:1 wrong norm") and line.endswith("; overridden later")
    ]
    assert section(lines, "Overridden") == [
        f'"norm": "rmsnrom" ({other}:1:1) -> "rmsnorm" (command line)',
        f'"checkpoint_factor": 10 ({model}:6:3) -> 5 ({other}:2:1)',
    ]


def test_a_key_written_twice_in_a_file_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = check(capsys, written(tmp_path, "a.yml", "log-interval: 1\nlog_interval: 2\n"))
    assert status == 1
    assert "already written" in " ".join(section(lines, "Problems"))


def test_defaults_that_matter_are_told_unless_they_are_written(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = check(capsys, model)
    told = [line.split()[0] for line in section(lines, "Defaults that differ")]
    assert {"gradient_clipping", "log_dir", "hidden_dropout", "weight_decay"} <= set(told)
    _, lines = check(capsys, model, "clip_grad=1.0", "log_dir=logs", "hidden_dropout=0", "weight_decay=0.1")
    told = [line.split()[0] for line in section(lines, "Defaults that differ")]
    assert not {"gradient_clipping", "log_dir", "hidden_dropout", "weight_decay"} & set(told)


def test_defaults_that_do_not_matter_are_left_out(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for precision, matters in (("fp32", False), ("bfloat16", True)):
        told = [
            line.split()[0]
            for line in section(check(capsys, model, f"precision={precision}")[1], "Defaults that differ")
        ]
        assert ("data_types" in told) == matters


def test_older_defaults_are_told_for_older_files_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer = written(tmp_path, "newer.yml", MODEL.replace("save-interval", "checkpoint_factor"))
    told = [line.split()[0] for line in section(check(capsys, newer)[1], "Defaults that differ")]
    assert "gradient_clipping" in told
    assert "hidden_dropout" not in told


def test_a_rewritten_config_is_tidy_and_means_the_same(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.yml"
    status, lines = check(capsys, model, "lr=1e-3", "--write", str(new))
    assert (status, lines[-1]) == (0, f"written: {new}")
    text = new.read_text()
    assert "num_layers: 4\nhidden_size: 64\n" in text
    assert "checkpoint_factor: 10\n" in text
    assert "lr: 0.001\n" in text
    assert "save-interval" not in text
    assert "save_interval" not in text
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    assert len(comments) == len(text.split("\n\n"))
    args = NeoXArgs.from_values(read_ymls([str(new)]), world_size=2)
    assert args == NeoXArgs.from_values(apply_overrides(read_ymls([model]), ["lr=1e-3"]), world_size=2)
    assert check(capsys, str(new))[0] == 0


def test_nothing_is_overwritten_and_nothing_unclear_is_written(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.yml"
    with pytest.raises(ConfigError, match="need your decision first"):
        main([model, "nrom=a", "--write", str(new)])
    with pytest.raises(ConfigError, match="does not exist; make it first"):
        main([model, "--write", str(tmp_path / "absent" / "new.yml")])
    assert not new.exists()
    new.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        main([model, "--write", str(new)])
    assert new.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        main([str(tmp_path / "absent.yml")])


def test_without_words_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "deepy.py check" in capsys.readouterr().err


def test_pipes_get_plain_text(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([model])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_the_front_door_leads_here(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert deepy.main(["check", "-q", model]) == 0
    assert "save_interval" in capsys.readouterr().out
    assert deepy.main(["check", "absent.yml"]) == 1
    assert capsys.readouterr().err.startswith('error: config file "absent.yml" does not exist')
