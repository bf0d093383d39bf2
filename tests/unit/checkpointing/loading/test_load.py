"""Loading what is damaged, missing, or made for another model."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.manifest import file_facts, read_manifest, write_manifest
from megatron.checkpointing.places import place
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.checkpointing.state_file import read_state
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from tests.unit.checkpointing.fakes import SHAPES, fake_engine, full_values


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def delete(path: Path) -> None:
    path.unlink()


DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    ("__0_0.distcp", truncate, r"__0_0.distcp has \d+ bytes and was written with \d+"),
    ("__0_0.distcp", delete, "__0_0.distcp is missing"),
    (".metadata", flip_a_byte, r"\.metadata has changed since it was written"),
    (".metadata", delete, r"\.metadata is missing"),
    ("state.json", flip_a_byte, "state.json has changed"),
    ("configs/config.yml", delete, "config.yml is missing"),
    ("manifest.json", delete, "it has no manifest.json"),
    ("manifest.json", truncate, "manifest.json is not readable JSON"),
]


@pytest.fixture
def two_saved(tmp_path: Path) -> Path:
    for iteration in (10, 20):
        engine = fake_engine(seed=iteration).fill(full_values(iteration))
        save_checkpoint(tmp_path, engine, iteration=iteration, run_state={"iteration": iteration}, config_yaml="a: 1\n")
    return tmp_path


@pytest.mark.parametrize(("name", "damage", "sentence"), DAMAGE)
def test_a_damaged_file_is_named_and_the_checkpoint_before_it_is_loaded(
    two_saved: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(two_saved / "global_step20" / name)
    engine = fake_engine()
    with caplog.at_level(logging.WARNING):
        loaded = load_checkpoint(two_saved, engine)
    assert loaded is not None
    assert loaded.run_state == {"iteration": 10}
    assert engine.holds(full_values(10))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith(f"; loaded {two_saved / 'global_step10'} instead")
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(two_saved, engine, iteration=20)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("state.json", content) for content in (b"", b"\x80\x81", b"null", b'{"format": 1}', b'{"format": "one"}')),
        *((".metadata", content) for content in (b"", b"garbage", b"\x80\x04N.")),
    ],
)
def test_garbage_that_the_manifest_vouches_for_is_found_all_the_same(
    two_saved: Path, caplog: pytest.LogCaptureFixture, name: str, content: bytes
) -> None:
    checkpoint = two_saved / "global_step20"
    (checkpoint / name).write_bytes(content)
    files = {**dict(read_manifest(checkpoint)), name: file_facts(content)}
    write_manifest(checkpoint, files)
    loaded = load_checkpoint(two_saved, fake_engine(), verification="full")
    assert loaded is not None
    assert loaded.iteration == 10
    assert f"{checkpoint / name} cannot be read" in caplog.text
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        load_checkpoint(two_saved, fake_engine(), iteration=20)


def test_when_all_are_damaged_the_error_names_every_reason(two_saved: Path) -> None:
    delete(two_saved / "global_step20" / "__0_0.distcp")
    truncate(two_saved / "global_step10" / "__0_0.distcp")
    engine = fake_engine().fill(full_values(1))
    with pytest.raises(
        CheckpointError, match=r"no checkpoint in .* can be loaded: .*global_step20.*missing; .*global_step10.*bytes"
    ):
        load_checkpoint(two_saved, engine, if_exists=True)
    assert engine.holds(full_values(1))
    assert engine.calls == []


def test_full_verification_finds_a_changed_byte_in_a_tensor(two_saved: Path) -> None:
    flip_a_byte(two_saved / "global_step20" / "__0_0.distcp")
    loaded = load_checkpoint(two_saved, fake_engine(), verification="full")
    assert loaded is not None
    assert loaded.iteration == 10


def test_a_tensor_file_full_of_garbage_is_found_while_reading_and_the_one_before_is_loaded(two_saved: Path) -> None:
    path = two_saved / "global_step20" / "__0_0.distcp"
    path.write_bytes(b"\x17" * path.stat().st_size)
    engine = fake_engine()
    loaded = load_checkpoint(two_saved, engine)
    assert loaded is not None
    assert loaded.iteration == 10
    assert engine.holds(full_values(10))
    with pytest.raises(CheckpointError, match=r"__0_0.distcp cannot be read"):
        load_checkpoint(two_saved, engine, iteration=20)


def test_a_given_iteration_is_loaded_and_a_missing_one_lists_what_is_there(two_saved: Path) -> None:
    loaded = load_checkpoint(two_saved, fake_engine(), iteration=10)
    assert loaded is not None
    assert loaded.iteration == 10
    with pytest.raises(
        CheckpointError, match="no checkpoint of iteration 15: complete checkpoints: global_step10, global_step20"
    ):
        load_checkpoint(two_saved, fake_engine(), iteration=15, if_exists=True)
    with pytest.raises(
        CheckpointError,
        match=r"global_step10 is the checkpoint of iteration 10, not of 20: give .*, the directory it is in",
    ):
        load_checkpoint(two_saved / "global_step10", fake_engine(), iteration=20)


@pytest.mark.parametrize("key", ["run_state", "scalars"])
def test_a_state_of_another_form_that_the_manifest_vouches_for_is_damage(two_saved: Path, key: str) -> None:
    path = two_saved / "global_step20" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: None}))
    with pytest.raises(DamagedCheckpoint, match=r"state\.json cannot be read \(TypeError: "):
        read_state(path.parent)


def test_a_store_that_nobody_knows_is_told_by_what_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^xx://bucket/run cannot be opened: "):
        Ranks(SINGLE, doing="comparing").first(lambda: place("xx://bucket/run"))


def test_latest_decides_and_a_checkpoint_directory_can_be_named_itself(two_saved: Path) -> None:
    (two_saved / "latest").write_text("global_step10")
    for directory, iteration in ((two_saved, 10), (two_saved / "global_step20", 20)):
        loaded = load_checkpoint(directory, fake_engine())
        assert loaded is not None
        assert loaded.iteration == iteration


def test_latest_that_points_nowhere_gives_the_one_before_it_and_says_so(
    two_saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (two_saved / "latest").write_text("global_step15")
    loaded = load_checkpoint(two_saved, fake_engine())
    assert loaded is not None
    assert loaded.iteration == 10
    assert "latest names global_step15, which is not there; loaded" in caplog.text


def test_without_a_readable_latest_the_newest_is_loaded_and_that_is_said(
    two_saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for content, reason in ((None, "is missing"), ("", "does not name"), ("nonsense", "does not name")):
        caplog.clear()
        (two_saved / "latest").unlink(missing_ok=True)
        if content is not None:
            (two_saved / "latest").write_text(content)
        loaded = load_checkpoint(two_saved, fake_engine())
        assert loaded is not None
        assert loaded.iteration == 20
        assert reason in caplog.text


def test_a_missing_checkpoint_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the directory does not exist"):
        load_checkpoint(tmp_path / "absent", fake_engine())
    with pytest.raises(CheckpointError, match="the directory is empty"):
        load_checkpoint(tmp_path, fake_engine())
    (tmp_path / "weights.bin").write_text("")
    with pytest.raises(CheckpointError, match=r"it contains weights.bin \(load_if_exists: true"):
        load_checkpoint(tmp_path, fake_engine())
    with pytest.raises(CheckpointError, match="it is a file, not a directory"):
        load_checkpoint(tmp_path / "weights.bin", fake_engine())


def test_a_fresh_start_is_allowed_only_where_nothing_was_ever_saved(two_saved: Path, tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "absent", fake_engine(), if_exists=True) is None
    for path in two_saved.glob("global_step*"):
        shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="no checkpoint to load"):  # `latest` says that there was something
        load_checkpoint(two_saved, fake_engine(), if_exists=True)


def test_a_wrong_directory_is_named_for_what_it_is_and_allows_no_fresh_start_by_accident(
    two_saved: Path, tmp_path: Path
) -> None:
    parent = tmp_path / "runs"
    shutil.copytree(two_saved / "global_step10", parent / "mine" / "global_step10")
    with pytest.raises(CheckpointError, match=r"there are checkpoints further down; give .*runs/mine"):
        load_checkpoint(parent, fake_engine())
    model = tmp_path / "llama"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("")
    for if_exists in (False, True):
        with pytest.raises(CheckpointError, match=r"model of Hugging Face transformers .*, which can be converted"):
            load_checkpoint(model, fake_engine(), if_exists=if_exists)
    (two_saved / "global_step20" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"global_step20 is not a complete checkpoint: it has no manifest.json"):
        load_checkpoint(two_saved / "global_step20", fake_engine())


def test_a_checkpoint_of_gpt_neox_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "global_step5").mkdir()
    (tmp_path / "global_step5" / "mp_rank_00_model_states.pt").write_text("")
    with pytest.raises(CheckpointError, match="GPT-NeoX or DeepSpeed; to load them, give this directory itself"):
        load_checkpoint(tmp_path, fake_engine())


def test_another_model_is_explained_and_nothing_is_touched(two_saved: Path) -> None:
    shapes = {name: shape for name, shape in SHAPES.items() if not name.startswith("4.norm")}
    shapes |= {f"0.word_embeddings.weight/{kind}": (40, 6) for kind in ("weight", "exp_avg")}
    shapes |= {
        f"{layer}.mlp.linear1.weight/{kind}": (3, 8, 5) for kind in ("weight", "exp_avg") for layer in range(3, 9)
    }
    engine = fake_engine(shapes).fill(full_values(1, shapes))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(two_saved, engine)
    assert str(caught.value) == (
        f"{two_saved / 'global_step20'} does not fit the model."
        " 6 parameters of the model are not in it: 3.mlp.linear1.weight, 4.mlp.linear1.weight, 5.mlp.linear1.weight,"
        " 6.mlp.linear1.weight, 7.mlp.linear1.weight and 1 more."
        " 1 parameter in it is not in the model: 4.norm.scale."
        " 1 parameter has another shape: 0.word_embeddings.weight is [37, 6] in the checkpoint and [40, 6] in the model."
        f" The settings it was trained with are in {two_saved / 'global_step20' / 'configs' / 'config.yml'}."
    )
    assert engine.holds(full_values(1, shapes))
    assert engine.calls == []


def test_another_optimizer_is_explained(two_saved: Path) -> None:
    shapes = {name.replace("exp_avg", "momentum"): shape for name, shape in SHAPES.items()}
    with pytest.raises(CheckpointError, match="holds the optimizer state exp_avg, and this optimizer needs momentum"):
        load_checkpoint(two_saved, fake_engine(shapes))
    assert load_checkpoint(two_saved, fake_engine(shapes), load_optimizer=False) is not None


def test_a_checkpoint_of_a_newer_format_says_so(two_saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron.checkpointing.state_file.FORMAT", 0)
    with pytest.raises(CheckpointError, match="has format 1, and this version reads formats up to 0"):
        load_checkpoint(two_saved, fake_engine())


def test_a_file_allows_no_fresh_start(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("")
    with pytest.raises(CheckpointError, match=r"it is a file, not a directory$"):
        load_checkpoint(tmp_path / "weights.bin", fake_engine(), if_exists=True)
