from __future__ import annotations

from pathlib import Path

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.reading.yaml_text import parse_yaml

FLOW_STYLE = """# a model
{
  # sizes
  "num-layers": 12,   "hidden_size": 768,
  "pipe-parallel-size": 1,
  "optimizer": {"type": "Adam", "params": {"lr": 6e-4, "betas": [0.9, 0.95],},},
  "no_weight_tying": True, "finetune": False, "load": None, "pos_emb": "none",
}
"""


def written(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def failure(*names: str, directory: str | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_ymls(names, directory=directory)
    return caught.value.problems


def test_flow_style_with_comments_and_trailing_commas_is_read() -> None:
    assert parse_yaml(FLOW_STYLE, source="a.yml").values == {
        "num_layers": 12,
        "hidden_size": 768,
        "pipe_parallel_size": 1,
        "optimizer": {"type": "Adam", "params": {"lr": "6e-4", "betas": [0.9, 0.95]}},
        "no_weight_tying": True,
        "finetune": False,
        "load": None,
        "pos_emb": "none",
    }


def test_every_key_knows_its_file_line_and_column() -> None:
    values = parse_yaml(FLOW_STYLE, source="a.yml")
    assert str(values.origin("num_layers")) == "a.yml:4:3"
    assert str(values.origin("hidden_size")) == "a.yml:4:23"
    assert str(values.origin("optimizer.params.lr")) == "a.yml:6:44"
    assert str(values.origin(("optimizer", "params", "betas", 1))) == "a.yml:6:71"


def test_a_path_without_an_origin_of_its_own_has_that_of_its_section() -> None:
    values = parse_yaml(FLOW_STYLE, source="a.yml")
    assert values.origin("optimizer.params.eps") == values.origin("optimizer.params")
    assert values.origin("absent") is None


def test_dates_stay_text() -> None:
    assert parse_yaml("wandb_run_name: 2024-05-01", source="a.yml").values == {"wandb_run_name": "2024-05-01"}


def test_the_same_key_in_two_spellings_names_both_places() -> None:
    (problem,) = parse_yaml("num-layers: 2\nhidden_size: 8\nnum_layers: 4\n", source="a.yml").problems
    sentence, *lines = problem.splitlines()
    assert sentence == '"num_layers" (a.yml:3:1) is already written as "num-layers" at a.yml:1:1: keep one of the two'
    assert [line.strip() for line in lines[::2]] == ["a.yml:1 | num-layers: 2", "a.yml:3 | num_layers: 4"]


def test_a_nested_key_written_twice_is_a_problem() -> None:
    (problem,) = parse_yaml("fp16: {enabled: true, enabled: false}", source="a.yml").problems
    sentence, text, carets = problem.splitlines()
    assert sentence == '"enabled" (a.yml:1:23) is already written at a.yml:1:8: keep one of the two'
    assert text.endswith("fp16: {enabled: true, enabled: false}")
    assert carets.endswith("|        ^^^^^^^        ^^^^^^^")


def test_an_empty_file_has_no_keys() -> None:
    assert parse_yaml("# nothing\n", source="a.yml").values == {}


def test_later_files_override_and_the_override_is_recorded(tmp_path: Path) -> None:
    first = written(tmp_path, "a.yml", "num_layers: 2\nfp16: {enabled: true, loss_scale: 0}\n")
    second = written(tmp_path, "b.yml", "seed: 1\nnum-layers: 4\nfp16: {enabled: false}\n")
    values = read_ymls([first, second])
    assert values.values == {"num_layers": 4, "seed": 1, "fp16": {"enabled": False}}
    assert [str(override) for override in values.overrides] == [
        f'"num_layers": 2 ({first}:1:1) -> 4 ({second}:2:1)',
        f'"fp16": {{"enabled": true, "loss_scale": 0}} ({first}:2:1) -> {{"enabled": false}} ({second}:3:1); '
        "fp16.loss_scale no longer given",
    ]
    assert str(values.origin("fp16.loss_scale")) == f"{second}:3:1"
    assert [file.path for file in values.files] == [first, second]


@pytest.mark.parametrize("name", ["m/125M", "m/125M.yml"])
def test_a_name_may_leave_the_suffix_out(tmp_path: Path, name: str) -> None:
    written(tmp_path, "m/125M.yml", "num_layers: 12\n")
    assert read_ymls([name], directory=str(tmp_path)).values == {"num_layers": 12}


def test_a_missing_file_is_told_with_similar_ones(tmp_path: Path) -> None:
    written(tmp_path, "pythia/large.yml", "")
    written(tmp_path, "125M.yml", "")
    misspelt, misplaced = failure("126M.yml", "large", directory=str(tmp_path))
    assert misspelt.startswith(f'config file "{tmp_path}/126M.yml" does not exist (did you mean {tmp_path}/125M.yml')
    assert f"(did you mean {tmp_path}/pythia/large.yml" in misplaced


def test_a_mistake_in_the_syntax_is_told_with_its_place_and_a_caret(tmp_path: Path) -> None:
    path = written(tmp_path, "a.yml", '{\n  "num_layers": [1, 2,\n  "hidden_size": }\n')
    (problem,) = failure(path)
    first, line, caret = problem.split("\n")
    assert first.startswith(f'{path}:3:18: a value is missing before this "}}"; ')
    assert line[caret.index("^")] == "}"


def test_every_broken_file_is_reported(tmp_path: Path) -> None:
    broken = written(tmp_path, "a.yml", "a: [\n")
    a_list = written(tmp_path, "b.yml", "- a\n")
    found = failure(broken, a_list, str(tmp_path / "c.yml"))
    assert len(found) == 3
    assert found[0].startswith(f'{broken}:1:4: this [ is never closed; add the missing "]"\n')
    assert found[1].startswith(f"{a_list}:1:1: expected keys and values, found a list; write one `key: value` a line\n")


def test_a_tab_is_explained(tmp_path: Path) -> None:
    (problem,) = failure(written(tmp_path, "a.yml", '{\n\t"num_layers": 2\n}\n'))
    assert "YAML does not allow tabs here; use spaces" in problem


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", bytes(64), bytes(range(128, 256))])
def test_a_file_that_is_not_text_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.yml"
    path.write_bytes(content)
    assert failure(str(path)) == (f'config file "{path}" is not text: give a YAML file',)


def test_a_character_of_another_encoding_is_pointed_at(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_bytes("seed: 1\nwandb_group: Größe\n".encode("latin-1"))
    (problem,) = failure(str(path))
    assert problem.startswith(f"{path}:2:16: this character is not UTF-8; write the file in that encoding\n")


def test_a_folder_lists_its_config_files(tmp_path: Path) -> None:
    written(tmp_path, "m/b.yml", "")
    written(tmp_path, "m/a.yml", "")
    (problem,) = failure("m", directory=str(tmp_path))
    assert (
        problem
        == f'"{tmp_path}/m" is a folder, not a config file: choose one of {tmp_path}/m/a.yml, {tmp_path}/m/b.yml'
    )


def test_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_bytes(b"\xef\xbb\xbfnum_layers: 2\r\nseed: 3\r\n")
    values = read_ymls([str(path)])
    assert values.values == {"num_layers": 2, "seed": 3}
    assert str(values.origin("num_layers")) == f"{path}:1:1"
    assert str(values.value_origin("seed")) == f"{path}:2:7"


def test_words_of_the_command_line_are_files_or_assignments() -> None:
    words = ["configs/a.yml", "num-layers=2", "b", "optimizer.params.lr=1e-4", "./x=y.yml"]
    files, assignments = split_arguments(words)
    assert files == ["configs/a.yml", "b", "./x=y.yml"]
    assert assignments == ["num-layers=2", "optimizer.params.lr=1e-4"]


def test_assignments_override_files_key_by_key() -> None:
    values = parse_yaml(FLOW_STYLE, source="a.yml")
    changed = apply_overrides(values, ["num-layers=2", "optimizer.params.lr=1e-3", "train_data_paths=[a, b]"])
    assert changed.values["num_layers"] == 2
    assert changed.values["optimizer"] == {"type": "Adam", "params": {"lr": "1e-3", "betas": [0.9, 0.95]}}
    assert changed.values["train_data_paths"] == ["a", "b"]
    assert [str(override) for override in changed.overrides] == [
        '"num_layers": 12 (a.yml:4:3) -> 2 (command line)',
        '"optimizer.params.lr": "6e-4" (a.yml:6:44) -> "1e-3" (command line)',
    ]
    assert str(changed.origin("optimizer.params.lr")) == "command line"
    assert str(changed.origin("optimizer.params.betas")).startswith("a.yml:6:")


def test_an_assignment_with_spaces_is_told_as_one_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        split_arguments(["a.yml", "num_layers", "=", "4"])
    expected = '"num_layers = 4" (command line) is not an assignment: write it without spaces, as key=value'
    assert caught.value.problems == (expected,)


def test_an_assignment_into_a_value_takes_its_place() -> None:
    changed = apply_overrides(parse_yaml("fp16: 3", source="a.yml"), ["fp16.enabled=true"])
    assert changed.values == {"fp16": {"enabled": True}}
    assert str(changed.origin("fp16")) == "command line"


def test_assignments_leave_the_given_values_alone() -> None:
    values = parse_yaml("fp16: {enabled: true}", source="a.yml")
    apply_overrides(values, ["fp16.enabled=false"])
    assert values.values == {"fp16": {"enabled": True}}


def test_an_assignment_into_an_absent_section_makes_it() -> None:
    assert apply_overrides(ConfigValues(), ["zero_optimization.stage=1"]).values == {"zero_optimization": {"stage": 1}}


@pytest.mark.parametrize("word", ["num_layers", "a..b=1", "split=[1,", "split=&a [*a]", "fp16={a: 1, a: 2}"])
def test_a_malformed_assignment_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="command line"):
        apply_overrides(ConfigValues(), [word])
