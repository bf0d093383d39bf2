"""How a weight matrix begins: each builder returns an `InitMethod` that fills a full-sized tensor from a generator.

`build_*` of the registry share one signature: std is `init_method_std`, num_layers `L` and hidden_size `h` of the model; a builder uses
those its formula has. A matrix is [outputs, inputs].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from megatron.components import INIT_METHODS
from megatron.mpu.shard import InitMethod


def build_init_method(name: str, *, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """The init method that a config calls `name`."""
    method: InitMethod = INIT_METHODS.load(name)(std=std, num_layers=num_layers, hidden_size=hidden_size)
    return method


def ones(tensor: Tensor, generator: torch.Generator) -> None:
    """All ones (the gain of a norm)."""
    tensor.fill_(1)


def zeros(tensor: Tensor, generator: torch.Generator) -> None:
    """All zeros (a bias)."""
    tensor.zero_()


def build_normal(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """Normal with standard deviation std."""
    return _normal(std)


def build_scaled_normal(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """Normal with std / sqrt(2 L): the sum of two residual branches a layer keeps its variance through depth."""
    return _normal(std / math.sqrt(2 * num_layers))


def build_single_residual_scaled_normal(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """Normal with std / sqrt(L), for layers with one residual branch."""
    return _normal(std / math.sqrt(num_layers))


def build_small_init(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """Normal with sqrt(2 / (5 h)) (Nguyen and Salazar, Transformers without Tears)."""
    return _normal(math.sqrt(2 / (5 * hidden_size)))


def build_wang_init(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """Normal with 2 / (L sqrt(h)) (Wang, mesh-transformer-jax)."""
    return _normal(2 / (num_layers * math.sqrt(hidden_size)))


def build_xavier_uniform(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """Uniform within sqrt(6 / (inputs + outputs)) of zero (Glorot and Bengio)."""

    def fill(tensor: Tensor, generator: torch.Generator) -> None:
        nn.init.xavier_uniform_(tensor, generator=generator)

    return fill


def build_xavier_normal(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """Normal with sqrt(2 / (inputs + outputs)) (Glorot and Bengio)."""

    def fill(tensor: Tensor, generator: torch.Generator) -> None:
        nn.init.xavier_normal_(tensor, generator=generator)

    return fill


def build_orthogonal(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """A random (semi-)orthogonal matrix times sqrt(2) (Saxe et al.)."""
    return _orthogonal(math.sqrt(2))


def build_scaled_orthogonal(*, std: float, num_layers: int, hidden_size: int) -> InitMethod:
    """A random (semi-)orthogonal matrix times sqrt(2 / L)."""
    return _orthogonal(math.sqrt(2 / num_layers))


def _normal(std: float) -> InitMethod:
    def fill(tensor: Tensor, generator: torch.Generator) -> None:
        tensor.normal_(0.0, std, generator=generator)

    return fill


def _orthogonal(gain: float) -> InitMethod:
    def fill(tensor: Tensor, generator: torch.Generator) -> None:
        nn.init.orthogonal_(tensor, gain, generator=generator)

    return fill
