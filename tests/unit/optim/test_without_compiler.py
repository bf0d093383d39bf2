"""Optimizers work without torch's compiler, which would take half a second to load."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from megatron.optim.without_compiler import keep_compiler_out
from tests.conftest import REPOSITORY

WHOLE_LIFE = """
import sys
import torch
import megatron.optim.adam

weight = torch.nn.Parameter(torch.ones(2, 2))
optimizer = torch.optim.AdamW([weight], fused=True)
weight.sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print(*(name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules))
"""


class Descent(torch.optim.SGD):
    """A class of its own, so that torch's are left as they are."""


def test_an_optimizer_lives_without_loading_the_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHOLE_LIFE], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"


def test_a_step_calls_its_hooks_and_no_derivative_is_taken_of_it() -> None:
    keep_compiler_out(Descent)
    keep_compiler_out(Descent)
    weight, called = nn.Parameter(torch.ones(2)), []
    weight.grad = torch.tensor([1.0, 2.0])
    optimizer = Descent([weight], lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    optimizer.step()  # of a leaf: torch would raise if it recorded the change
    torch.testing.assert_close(weight.detach(), torch.tensor([0.9, 0.8]))
    assert called == ["before", "after"]
    assert torch.is_grad_enabled()
