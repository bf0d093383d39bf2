"""torch's attention by a kernel of one's choice (`sdpa_backend`), where torch would choose one by itself.

Shapes: `s` queries, `S` keys, `b` micro-batch, `n` local query heads, `k` local key/value heads, `d` head size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from megatron.errors import NeoXError

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
NONE_FITS = ("No available kernel", "No viable backend")


def torch_attention(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, backend: str = "auto") -> Tensor:
    """query [b, n, s, d], key and value [b, k, S, d] -> [b, n, s, d]; the mask is added to the scores, or says what is seen; None = causal.

    Raises NeoXError when the kernel `backend` cannot compute this; `auto` leaves the choice to torch.
    """
    if backend == "auto":
        return _attend(query, key, value, mask)
    try:
        with sdpa_kernel(KERNELS[backend]):
            return _attend(query, key, value, mask)
    except RuntimeError as error:
        if not str(error).startswith(NONE_FITS):
            raise
        heads = f"{query.shape[1]} query and {key.shape[1]} key/value heads of {query.shape[-1]} channels"
        masked = "with a mask" if mask is not None else "without a mask"
        raise NeoXError(
            f'"sdpa_backend" {backend} cannot compute attention of {heads} in {str(query.dtype).removeprefix("torch.")}, {masked}, '
            f'on this {query.device.type}: set it to "auto", which takes a kernel that can'
        ) from error


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1]
    )
