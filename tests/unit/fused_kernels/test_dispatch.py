"""Where kernels can run they are chosen, and elsewhere plain torch of the same signature, which is said once."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys

import pytest
import torch

from megatron.fused_kernels import dispatch, reference
from tests.unit.fused_kernels.children import REPOSITORY


@pytest.fixture(autouse=True)
def _nothing_said() -> None:
    dispatch._say_once.cache_clear()


def test_on_a_cpu_it_is_plain_torch_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert dispatch.choose("rms_norm", wanted=True, device="cpu") is reference.rms_norm
        assert dispatch.choose("layer_norm", wanted=True, device=torch.device("cpu")) is reference.layer_norm
    assert caplog.messages == [
        "fused kernels run as plain torch operations here, with the same numbers: the model is on the CPU, and they need a GPU"
    ]


def test_what_nobody_wants_is_plain_torch_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert dispatch.choose("rms_norm", wanted=False, device="cuda") is reference.rms_norm
    assert not caplog.messages


@pytest.mark.parametrize("name", dispatch.MODULES)
def test_on_a_gpu_it_is_the_kernel_with_the_same_signature(name: str) -> None:
    chosen = dispatch.choose(name, wanted=True, device="cuda")
    plain = dispatch.plain(name)
    assert chosen is not plain
    assert chosen.__name__ == plain.__name__
    assert inspect.signature(chosen) == inspect.signature(plain)


def test_without_triton_it_is_plain_torch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(dispatch, "find_spec", lambda _: None)
    with caplog.at_level(logging.INFO):
        assert dispatch.choose("rms_norm", wanted=True, device="cuda") is reference.rms_norm
    assert 'the package "triton" is not installed' in caplog.text


def test_triton_is_not_imported_on_a_cpu() -> None:
    program = (
        "import sys; from megatron.fused_kernels import dispatch;"
        "dispatch.choose('rms_norm', wanted=True, device='cpu'); print('triton' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
