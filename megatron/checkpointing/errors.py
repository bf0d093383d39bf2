"""The error by which loading knows that another checkpoint may still be good."""

from __future__ import annotations

from megatron.errors import CheckpointError


class DamagedCheckpoint(CheckpointError):
    """A file of a checkpoint is missing, truncated or unreadable. Loading goes back to an earlier checkpoint, saying so."""
