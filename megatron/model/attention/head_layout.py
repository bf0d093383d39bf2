"""The two ways in which queries, keys and values lie in the output of the fused projection.

Multi-head: head by head, `[q_0; k_0; v_0; q_1; k_1; v_1; ...]`. Grouped-query: `[all q; all k; all v]`. Both are cut over the
tensor-parallel ranks so that a rank's part has the same layout with its own heads.

Shapes: `s` sequence, `b` micro-batch, `n` local query heads, `k` local key/value heads, `d` head size.
"""

from __future__ import annotations

from torch import Tensor


def split_interleaved(fused: Tensor, num_heads: int, num_kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[s, b, 3 n d] laid out head by head -> query, key, value, each [b, n, s, d] (num_kv_heads is num_heads here)."""
    heads = fused.unflatten(-1, (num_heads, 3, -1)).permute(3, 1, 2, 0, 4)  # [3, b, n, s, d]
    query, key, value = heads.unbind(0)
    return query, key, value


def split_grouped(fused: Tensor, num_heads: int, num_kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[s, b, (n + 2 k) d] laid out as [Q | K | V] -> query [b, n, s, d], key and value [b, k, s, d]."""
    heads = fused.unflatten(-1, (num_heads + 2 * num_kv_heads, -1)).permute(1, 2, 0, 3)  # [b, n + 2 k, s, d]
    query, key, value = heads.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    return query, key, value
