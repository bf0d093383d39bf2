from __future__ import annotations

from pathlib import Path

import pytest

from megatron.cli.explain import main
from megatron.errors import ConfigError
from megatron.neox_arguments.explaining.key_names import find_key, sort_words

MODEL = """num_layers: 4
hidden_size: 64
num_attention_heads: 4
seq_length: 32
train_micro_batch_size_per_gpu: 2
train_iters: 100
save-interval: 10
optimizer: {type: Adam, params: {lr: 6e-4}}
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.yml"
    path.write_text(MODEL)
    return str(path)


def explain(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines that are not empty, with runs of spaces as one."""
    assert main(words) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line]


def test_a_key_is_explained_without_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    lines = explain(capsys, "rotary_pct")
    assert lines[0] == "rotary_pct"
    assert lines[1].startswith("Fraction of each head's channels that are rotated")
    assert "type number, above 0, at most 1" in lines
    assert "default 1.0" in lines
    assert "came about" not in lines


def test_the_other_spelling_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "also written as optimizer.params.lr" in explain(capsys, "lr")
    assert "also written as lr" in explain(capsys, "optimizer.params.lr")
    assert "default 0.001" in explain(capsys, "lr")


def test_older_keys_and_computed_values_are_explained_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "save-interval") == ["save_interval", "an older key; iterations between checkpoints"]
    (line,) = [line for line in explain(capsys, "warmup_steps") if line.startswith("derived")]
    assert line == "derived warmup x lr_decay_steps, from warmup, lr_decay_steps"


def test_a_feature_that_is_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "state Not built yet: soft prompt tuning." in explain(capsys, "soft_prompt_tuning")


def test_the_way_of_a_value_is_told_from_its_default_on(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explain(capsys, "lr", model, "lr=1e-4")
    assert lines[0] == "lr = 0.0001"
    assert lines[lines.index("came about") + 1 :] == [
        "default 0.001",
        f"{model}:8:34 optimizer.params.lr: 0.0006".replace("0.0006", '"6e-4"'),
        'command line "1e-4"',
    ]


def test_a_derived_value_is_told_with_its_rule_and_inputs(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explain(capsys, "max_position_embeddings", model)
    assert lines[0] == "max_position_embeddings = 32"
    assert lines[-2:] == ["derived 32 equals seq_length", f"from seq_length = 32 ({model}:4:1)"]


def test_an_older_key_shows_what_it_was_read_as(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        f'"save_interval" is 10 ({model}:7:1): read as checkpoint_factor: 10; iterations between checkpoints'
        in explain(capsys, "save_interval", model)
    )
    lines = explain(capsys, "checkpoint_factor", model)
    assert lines[0] == "checkpoint_factor = 10"
    assert lines[-1] == f"{model}:7:1 save_interval: 10 checkpoint_factor now; iterations between checkpoints"


def test_several_keys_are_explained_in_order(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explain(capsys, "mlp_width", model, "head-dim")
    assert [line for line in lines if " = " in line and not line.startswith("from ")] == [
        "mlp_width = 256",
        "head_dim = 16",
    ]


def test_without_a_key_everything_that_is_no_default_is_listed(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explain(capsys, model, "model_parallel_size=2")
    assert f"num_layers 4 {model}:1:1" in lines
    assert f"checkpoint_factor 10 {model}:7:1" in lines
    assert "model_parallel_size 2 command line" in lines
    assert "2 processes = 1 pipeline stage x 1 data-parallel copy x 2 tensor ranks" in lines
    assert not [line for line in lines if line.startswith("norm ")]


def test_a_config_that_cannot_run_is_explained_with_its_problems(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = explain(
        capsys, "hidden_size", model, "num_kv_heads=3", "norm=rmsnrom", "soft_prompt_tuning={enabled: true}"
    )
    assert lines[0] == "hidden_size = 64"
    assert "3 problems keep this config from running:" in lines
    assert [line for line in lines if line.startswith('error: "norm" is "rmsnrom" (command line)')]
    assert [line for line in lines if line.startswith("not built yet: ") and "soft prompt tuning" in line]
    assert explain(capsys, "norm", model, "norm=rmsnrom")[0] == "norm = no usable value (see the problems)"


def test_parts_of_a_config_are_explained_as_far_as_they_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = tmp_path / "part.yml"
    part.write_text("log_interval: 5\n")
    lines = explain(capsys, "log_interval", "mlp_width", str(part))
    assert "log_interval = 5" in lines
    assert "mlp_width = no usable value (see the problems)" in lines
    assert f"{part}:1:1 5" in lines


def test_words_are_keys_files_or_assignments(model: str, tmp_path: Path) -> None:
    names = sort_words(["zero-optimization.stage", model, "lr=1", str(tmp_path / "model")])
    assert names.keys == ("zero_optimization.stage",)
    assert names.files == (model, str(tmp_path / "model"))
    assert names.assignments == ("lr=1",)


def test_a_key_is_a_key_even_where_a_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "norm.yml").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    assert sort_words(["norm", "norm.yml"]).keys == ("norm",)
    assert sort_words(["norm", "norm.yml"]).files == ("norm.yml",)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("nrom", '(did you mean "norm"?)'),
        ("mlp-with", '(did you mean "mlp_width"?)'),
        ("optimizer.parms.lr", '(did you mean "optimizer.params.lr"?)'),
        ("save_intervall", '(did you mean "save_interval"?)'),
        ("optimizer.params.beta", '(did you mean "optimizer.params.betas"?)'),
        ("optimizer.params.xyzzy", ": choose among lr, betas, eps"),
    ],
)
def test_a_word_that_is_nothing_is_told_with_what_it_may_mean(word: str, hint: str) -> None:
    assert find_key(word) is None
    with pytest.raises(ConfigError) as caught:
        main([word])
    assert f'"{word}" is neither a key nor a config file' in str(caught.value)
    assert hint in str(caught.value)


def test_a_file_that_does_not_exist_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        main(["lr", "absent.yml"])
