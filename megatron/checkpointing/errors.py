"""The errors of checkpoints that somebody reacts to: loading goes on with another one, and the launcher starts the ranks again."""

from __future__ import annotations

from megatron.errors import CheckpointError


class DamagedCheckpoint(CheckpointError):
    """A file of a checkpoint is missing, truncated or unreadable. Loading goes back to an earlier checkpoint, saying so."""


class LostRank(CheckpointError):
    """Another rank died or hung while all were saving or loading; the ranks may well get through when they are started again."""

    may_pass = True


def reason_of(error: BaseException) -> str:
    """Why something failed, in the words of the system (or of a store's library), on one line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
