"""The feed-forward part of a block: plain and gated."""
