"""The engine that is chosen is one that is proven, and other processes build the same from its blueprint."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.fast import choice
from megatron.tokenizer.fast.choice import build_batch_encoder, build_from
from megatron.tokenizer.fast.encoder import FastEncoder, TokenizerEncoder
from tests.unit.tokenizer.fast.families import ODD, corpus, family
from tests.unit.tokenizer.small import every_kind
from tools.benchmark.tokenizer_families import FAMILIES

CASES = [(name, engine) for name in FAMILIES for engine in choice.ENGINES if (name, engine) != ("own", "gigatoken")]


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_blueprint_gives_the_same_encoder_in_another_process_without_a_proof(
    name: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blueprint = pickle.dumps(build_batch_encoder(family(name), engines=[engine]).blueprint)
    monkeypatch.delattr(choice, "read_byte_pairs")
    built = build_from(pickle.loads(blueprint), family(name))
    assert isinstance(built, FastEncoder)
    assert built.engine == engine
    texts = [*ODD, *(f" {piece}x{piece} " for piece in ODD), corpus()[0]]
    assert [ids.tolist() for ids in built.encode_batch(texts)] == family(name).tokenize_batch(texts)
    assert built.left < len(texts) / 2


def test_without_a_blueprint_the_tokenizer_itself_serves() -> None:
    assert build_batch_encoder(family("gpt2"), engines=[]).blueprint is None
    built = build_from(None, family("gpt2"))
    assert isinstance(built, TokenizerEncoder)
    assert built.encode_batch(["a text"])[0].tolist() == family("gpt2").tokenize("a text")


def test_the_fastest_engine_that_fits_is_taken() -> None:
    assert build_batch_encoder(family("neox")).engine == "gigatoken"
    assert build_batch_encoder(family("own")).engine == "tiktoken"


def test_an_engine_that_differs_on_the_sample_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from megatron.tokenizer.fast.with_tiktoken import TiktokenEngine

    honest = TiktokenEngine.encode
    monkeypatch.setattr(TiktokenEngine, "encode", lambda self, text: honest(self, text.replace("strange", "Strange")))
    choice._tell.cache_clear()
    assert build_batch_encoder(family("own"), sample=["plain", "text"]).engine == "tiktoken"
    with caplog.at_level(logging.WARNING):
        built = build_batch_encoder(family("own"), sample=["plain", "a strange text"])
    assert isinstance(built, TokenizerEncoder)
    assert "tiktoken gave other ids for a text of the input" in caplog.text
    assert built.encode_batch(["a strange text"])[0].tolist() == family("own").tokenize("a strange text")


def test_without_the_packages_the_tokenizer_serves_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed = choice.version

    def version(package: str) -> str:
        if package == "gigatoken":
            raise choice.PackageNotFoundError(package)
        return "0.1.0" if package == "tiktoken" else installed(package)

    monkeypatch.setattr(choice, "version", version)
    choice._tell.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert build_batch_encoder(family("gpt2")).engine == "HFTokenizer"
    assert len(caplog.records) == 1
    assert "gigatoken is not installed" in caplog.text
    assert "tiktoken is version 0.1.0" in caplog.text
    assert "requirements/requirements-fast-tokenizers.txt" in caplog.text


def test_every_kind_of_tokenizer_has_an_encoder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    choice._tell.cache_clear()
    texts = ["hello world", "", "It's 12 <|endoftext|>", "\u65e5\u672c"]
    for name, where in every_kind(tmp_path).items():
        tokenizer = build_tokenizer(TokenizerSettings(**vars(where)))
        built = build_batch_encoder(tokenizer, sample=texts)
        assert [ids.tolist() for ids in built.encode_batch(texts)] == [tokenizer.tokenize(text) for text in texts]
        assert isinstance(built, FastEncoder) == (name in ("GPT2BPETokenizer", "HFTokenizer", "HFGPT2Tokenizer"))
    assert not caplog.records


def test_the_versions_that_were_compared_are_those_that_are_installed_by_the_requirements() -> None:
    directory = Path(choice.__file__).resolve().parents[3] / "requirements"
    pins = "\n".join(file.read_text() for file in directory.glob("*.txt")).splitlines()
    assert {f"{package}=={number}" for package, number in choice.PROVEN.items()} <= set(pins)
