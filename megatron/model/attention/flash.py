"""Attention that writes no scores as large as the square of a long sequence: a flash-attn package where one is installed and fits, in
training on a CPU blocks of products (blockwise.py) where they are faster, torch's SDPA otherwise.

Packed documents that do not see each other are one call of the package, and document by document on a CPU, where many small calls cost
little. SDPA on a GPU takes a mask for them, where `flex` needs none.

Shapes: `s` queries, `S` keys, `b` micro-batch, `n` local query heads, `k` local key/value heads, `d` head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megatron.model.attention.base import Attention
from megatron.model.attention.blockwise import blockwise_attention
from megatron.model.attention.distance_bias import exact_type
from megatron.model.attention.flash_packages import FlashAttn, fitting_package
from megatron.model.attention.mask import window_bias
from megatron.model.attention.sdpa import torch_attention
from megatron.model.documents import Documents

SHORT = 8
"""In training on a CPU, weights are kept for the backward pass where a sequence has at most as many tokens for each channel of a head: there
they take about as much memory as queries, keys, values and the result."""


class FlashAttention(Attention):
    """The same function as `GlobalAttention`, computed block by block; while weights are dropped, that function itself.

    On a GPU without the flash-attn package, a window shorter than the sequence needs a mask [s, s], one for all layers, a bias by distances
    (ALiBi) one of [1, n, s, s], and documents that do not see each other one of [b, 1, s, s], with that bias [b, n, s, s]. A CPU needs the
    first two where it does not train.
    """

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, documents: Documents | None = None
    ) -> Tensor:
        """See Attention.attend."""
        package = None
        if allowed is None and self._own_backend == "auto":
            package = fitting_package(query, has_slopes=self.distance_bias is not None)
        if package is not None:
            return self._by_package(package, query, key, value, documents)
        if documents is not None and _small_calls_are_cheap(query):
            return self._by_documents(query, key, value, documents)
        if documents is None and allowed is None and self._goes_by_blocks(query):
            return self._by_blocks(query, key, value)
        if documents is None and self.distance_bias is None:
            return self._by_torch(query, key, value, mask=allowed)
        if query.shape[1] != key.shape[1] and not _takes_any_mask(query):
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        return self._by_torch(query, key, value, mask=self._mask(query, allowed, documents))

    @property
    def _own_backend(self) -> str:
        """The kernel that was asked for, while training."""
        return self.sdpa_backend if self.training else "auto"

    def _mask(self, query: Tensor, allowed: Tensor | None, documents: Documents | None) -> Tensor | None:
        """What torch adds to the scores, as one tensor for all layers; None = it is causal, in a window if there is one."""
        if self.distance_bias is not None:
            dtype = exact_type(query.dtype) if _takes_any_mask(query) else query.dtype
            return self.distance_bias.of(query, allowed, documents, dtype)
        return None if documents is None else documents.bias(self.window, query.dtype)

    def _by_documents(self, query: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
        # A mask depends on distances alone: every document has a corner of it.
        mask = None if self._goes_by_blocks(query) else self._mask(query, None, None)
        if all(len(row) == 1 for row in documents.lengths):
            return self._by_itself(query, key, value, mask=mask)
        rows = []
        for row, lengths in enumerate(documents.lengths):
            pieces = (x[row : row + 1].split(lengths, dim=2) for x in (query, key, value))
            masks = (None if mask is None else mask[..., :length, :length] for length in lengths)
            mixed = [self._by_itself(*heads, mask=corner) for *heads, corner in zip(*pieces, masks, strict=True)]
            rows.append(torch.cat(mixed, dim=2))
        return torch.cat(rows)

    def _by_itself(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None) -> Tensor:
        if self._goes_by_blocks(query):
            return self._by_blocks(query, key, value)
        return self._by_torch(query, key, value, mask=mask)

    def _goes_by_blocks(self, query: Tensor) -> bool:
        """Whether blockwise.py is faster than SDPA for whole sequences: with a window, with distances (fp16 but by GPUs is slow), and for short
        ones in bf16 unless the CPU multiplies tiles of it (AMX), as torch's kernel then does."""
        is_training_on_cpu = self.training and _small_calls_are_cheap(query)
        if not is_training_on_cpu or self.sdpa_backend != "auto" or query.dtype == torch.float16:
            return False
        length = query.shape[2]
        if self.distance_bias is not None or (self.window is not None and self.window < length):
            return True
        return query.dtype == torch.bfloat16 and _is_short(query) and not torch.cpu._is_amx_tile_supported()

    def _by_blocks(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return blockwise_attention(
            query,
            key,
            value,
            window=self.window,
            slopes=None if self.distance_bias is None else self.distance_bias.slopes_on(query.device),
            keep_weights=_is_short(query) and not self.recompute_scores,
        )

    def _by_torch(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None) -> Tensor:
        length = key.shape[2]
        if mask is None and self.window is not None and self.window < length:
            mask = window_bias(length, self.window, query.dtype, query.device)
        return torch_attention(query, key, value, mask=mask, backend=self._own_backend)

    def _by_package(
        self, package: FlashAttn, query: Tensor, key: Tensor, value: Tensor, documents: Documents | None
    ) -> Tensor:
        by_token = [x.transpose(1, 2) for x in (query, key, value)]  # [b, s, heads, d]
        # Its window counts the keys before and after a query's own; -1 is no limit.
        window = (-1, -1) if self.window is None else (self.window - 1, 0)
        slopes = {} if self.distance_bias is None else {"alibi_slopes": self.distance_bias.slopes_on(query.device)}
        if documents is None:
            rows: Tensor = package.dense(*by_token, causal=True, window_size=window, **slopes)
            return rows.transpose(1, 2)
        borders, longest = documents.cumulative_lengths(), query.shape[2]
        mixed: Tensor = package.by_documents(
            *(x.flatten(0, 1) for x in by_token),  # [b s, heads, d]
            cu_seqlens_q=borders,
            cu_seqlens_k=borders,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
            causal=True,
            window_size=window,
            **slopes,
        )
        by_row: Tensor = mixed.unflatten(0, (query.shape[0], longest))
        return by_row.transpose(1, 2)


def _is_short(query: Tensor) -> bool:
    return query.shape[2] <= SHORT * query.shape[-1]


def _small_calls_are_cheap(query: Tensor) -> bool:
    """Each document apart took 0.05 to 0.6 of the time of one call with a mask on a CPU, and as long where a row has one or two."""
    return query.device.type == "cpu"


def _takes_any_mask(query: Tensor) -> bool:
    """torch's kernel on a CPU does. On a GPU those that take a mask know no groups of heads, nor fp32 beside queries of half precision:
    torch would write all scores."""
    return query.device.type == "cpu"
