"""Kinds of attention types, the names in `attention_config`."""

from __future__ import annotations

SPARSE = ("local", "sparse_fixed", "sparse_variable", "bigbird", "bslongformer")
"""Attention in which a token sees some of the tokens before it."""

WHOLE_BLOCKS = ("gmlp", "amlp", "rwkv", "mamba")
"""Types that are whole blocks, with neither the usual attention nor an MLP beside it."""
