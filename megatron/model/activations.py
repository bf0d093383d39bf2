"""Activation functions by name: plain functions from a tensor to a tensor of the same shape.

A gated MLP applies the function to its gate only, so `swiglu` is the gated MLP with `silu`, `glu` the one with `sigmoid`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.components import ACTIVATIONS, GATED_ACTIVATIONS
from megatron.fused_kernels import reference
from megatron.fused_kernels.dispatch import choose

if TYPE_CHECKING:
    from megatron.neox_arguments import NeoXArgs

Activation = Callable[[Tensor], Tensor]


def build_activation(name: str, *, tanh_gelu: bool) -> Activation:
    """The function that a config calls `name`; with `tanh_gelu`, `gelu` is its tanh approximation.

    As in GPT-NeoX the gate of `geglu` is always exact: the fused kernel that approximates exists for the plain MLP only.
    """
    function: Activation = ACTIVATIONS.load(name)
    return gelu_tanh if function is gelu and tanh_gelu and name not in GATED_ACTIVATIONS else function


def choose_fused_activation(args: NeoXArgs, device: torch.device | str) -> Callable[..., Tensor] | None:
    """What an MLP computes its activation by together with what stands before it (see there), None = one after the other."""
    if args.use_flashattn_swiglu and args.activation in ("swiglu", "geglu"):
        return choose(args.activation, wanted=True, device=device)
    if not (args.bias_gelu_fusion and args.activation == "gelu" and args.use_bias_in_mlp):
        return None
    fused = choose("bias_gelu_tanh", wanted=True, device=device)
    # Without a kernel the matrix product adds the bias, in no time of its own.
    return None if fused is reference.bias_gelu_tanh else fused


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, `x Phi(x)`."""
    return reference.gelu_erf(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation."""
    return reference.gelu_tanh(x)


def relu(x: Tensor) -> Tensor:
    """`max(x, 0)`."""
    return F.relu(x)


def silu(x: Tensor) -> Tensor:
    """`x sigmoid(x)`, also called swish."""
    return F.silu(x)


def softsign(x: Tensor) -> Tensor:
    """`x / (1 + |x|)`."""
    return F.softsign(x)


def mish(x: Tensor) -> Tensor:
    """`x tanh(log(1 + exp(x)))`."""
    return F.mish(x)


def sigmoid(x: Tensor) -> Tensor:
    """`1 / (1 + exp(-x))`."""
    return torch.sigmoid(x)


def identity(x: Tensor) -> Tensor:
    """`x`."""
    return x
