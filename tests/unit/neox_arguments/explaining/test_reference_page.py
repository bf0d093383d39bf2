"""The page and the schema of all keys: complete, consistent, and as the code says."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import DEFAULT_ZERO
from megatron.neox_arguments.explaining.field_docs import GROUPS
from megatron.neox_arguments.explaining.key_state import KeyState, state_of
from megatron.neox_arguments.explaining.reference_page import page_text
from megatron.neox_arguments.explaining.section_docs import describe_key, sub_keys
from megatron.neox_arguments.keys.sections import LEGACY, SECTIONS
from megatron.neox_arguments.reading.legacy_rules import RULES
from megatron.neox_arguments.resolving.unsupported import NOT_BUILT, RUNTIME, WITHOUT_EFFECT
from tests.conftest import REPOSITORY

PAGE = page_text()
HEADINGS = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
SUB_KEYS = [path for key in NeoXArgs.model_fields for path in sub_keys(key)]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/config_reference.py."""
    spec = importlib.util.spec_from_file_location("config_reference", REPOSITORY / "tools" / "config_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_code_says(tool: ModuleType) -> None:
    stale = tool.stale_files()
    assert not stale, f"run `python tools/config_reference.py --write` (or `make reference`): {', '.join(stale)}"


def test_stale_files_are_told_and_rewritten(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "REPOSITORY", tmp_path)
    (tmp_path / "configs").mkdir()
    page = tmp_path / "configs" / "neox_arguments.md"
    page.write_text("# By hand\n")
    assert tool.main(["--check"]) == 1
    assert "configs/neox_arguments.md is not what the code says: run python" in capsys.readouterr().err
    assert tool.main(["--write"]) == 0
    assert tool.main(["--check"]) == 0
    assert page.read_text() == PAGE


def test_every_key_has_its_heading_once_in_the_order_of_the_groups() -> None:
    keys = [key for group in GROUPS.values() for key in group.model_fields]
    assert [heading.strip("`") for heading in HEADINGS if heading.startswith("`")] == keys
    assert set(keys) == set(NeoXArgs.model_fields)


def test_every_link_leads_to_a_heading_and_no_two_headings_share_an_anchor() -> None:
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS]
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= set(anchors)


def test_rows_of_tables_have_as_many_cells_as_their_heads() -> None:
    width = 0
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        assert width in (0, cells), line
        width = cells


def test_a_key_tells_type_default_state_and_description() -> None:
    lines = PAGE.splitlines()

    def entry(key: str) -> list[str]:
        start = lines.index(f"### `{key}`")
        return [line for line in lines[start + 1 : start + 5] if line]

    assert entry("rotary_pct")[0] == "number, above 0, at most 1 · default `1.0`"
    assert entry("num_layers")[0] == "whole number, at least 1, at most 100000 · required: every model needs it"
    assert entry("max_position_embeddings")[0].endswith("· derived: [seq_length](#seq_length)")
    assert entry("z_loss")[0].endswith("· **not built yet**: the z-loss")
    assert entry("synchronize_each_layer")[0].endswith("· **accepted without effect**")
    assert entry("do_train")[0].endswith("· **set while running only**")
    assert entry("clip_grad")[0].endswith("· **older spelling**: gradient_clipping")
    assert "`sinusoidal`" in entry("pos_emb")[0].partition("not built yet")[2]
    assert "Existing GPT-NeoX does not apply this default" in entry("gradient_clipping")[1]


def test_states_follow_the_tables_of_what_is_not_built() -> None:
    for path in NOT_BUILT:
        assert state_of(path).state in ("not built yet", "older spelling"), path
    assert {state_of(key).state for key in RUNTIME} == {"set while running only"}
    assert {state_of(key).state for key in WITHOUT_EFFECT} == {"accepted without effect"}
    assert state_of("num_layers") == KeyState("built")
    assert str(state_of("num_layers")) == ""
    assert str(state_of("batch_size")) == "Older spelling of train_micro_batch_size_per_gpu."
    assert state_of("soft_prompt_tuning.enabled").state == "not built yet"
    assert state_of("fp16.enabled").state == "built"


def test_every_older_key_is_on_the_page() -> None:
    listed = PAGE.partition("## Keys of older files")[2]
    assert [key for key, rule in RULES.items() if not rule.remains and f"| `{key}` |" not in listed] == []
    assert "| `save_interval` | [checkpoint_factor](#checkpoint_factor): " in listed


def test_every_description_is_a_sentence() -> None:
    for path in [*NeoXArgs.model_fields, *SUB_KEYS]:
        text = describe_key(path).text
        assert len(text.split()) > 2, path
        assert text.endswith("."), path


def test_sections_are_keys_that_hold_keys() -> None:
    for section in SECTIONS:
        assert describe_key(section).type == "section of keys and values"


def test_defaults_within_sections_are_those_of_the_installed_deepspeed() -> None:
    zero = {**deepspeed_defaults("runtime/zero/config.py", "DeepSpeedZeroConfig"), **DEFAULT_ZERO, "overlap_comm": None}
    offload = "runtime/zero/offload_config.py"
    for section, theirs in {
        "fp16": {**deepspeed_defaults("runtime/precision_config.py", "DeepSpeedFP16Config"), "enabled": None},
        "bf16": {**deepspeed_defaults("runtime/precision_config.py", "DeepSpeedBF16Config"), "enabled": None},
        "zero_optimization": {**zero, "leaf_module": None},
        "zero_optimization.offload_optimizer": deepspeed_defaults(offload, "DeepSpeedZeroOffloadOptimizerConfig"),
        "zero_optimization.offload_param": deepspeed_defaults(offload, "DeepSpeedZeroOffloadParamConfig"),
        "tensorboard": deepspeed_defaults("monitor/config.py", "TensorBoardConfig"),
        "csv_monitor": deepspeed_defaults("monitor/config.py", "CSVConfig"),
    }.items():
        ours = {key: field.default for key, field in SECTIONS[section].model_fields.items()}
        assert {key: ours[key] for key in theirs} == theirs, section
        assert set(ours) - set(theirs) <= LEGACY.get(section, frozenset())


def deepspeed_defaults(file: str, class_name: str) -> dict[str, Any]:
    """The defaults of a class of DeepSpeed's settings, read without importing it."""
    spec = importlib.util.find_spec("deepspeed")
    if spec is None or spec.origin is None:
        pytest.skip("DeepSpeed is not installed")
    tree = ast.parse((Path(spec.origin).parent / file).read_text())
    (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    defaults = {}
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, value = node.target.id, node.value
            if isinstance(value, ast.Call):
                alias = [word.value for word in value.keywords if word.arg == "alias"]
                name = ast.literal_eval(alias[0]) if alias else name
                default = [word.value for word in value.keywords if word.arg == "default"]
                value = (value.args or default or [None])[0]
                if isinstance(value, ast.Call):  # pp_int(5e8) prints nicely
                    value = value.args[0]
            defaults[name] = _evaluate(value)
    return defaults


def _evaluate(node: ast.expr | None) -> Any:
    if node is None or isinstance(node, ast.Attribute):  # sys.maxsize
        return None if node is None else 2**63 - 1
    return ast.literal_eval(node)
