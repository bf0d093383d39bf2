"""The errors a user may see. Each message is a sentence with the value, what is allowed and the fix; never a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class NeoXError(Exception):
    """Base of every error that is the user's to fix. Entry points print its message alone and exit with code 1.

    may_pass: whether the cause may be gone when the same thing is tried again, so that it is worth a restart (`max_restarts`). A mistake in
    the configuration, a file that is missing or damaged, a full disk or a loss that is no number any more comes again: someone has to look.
    """

    may_pass = False


class ConfigError(NeoXError):
    """One or more problems in the configuration; `problems` holds one complete message each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class LaunchError(NeoXError):
    """Workers cannot be started, or one of them failed."""


class CheckpointError(NeoXError):
    """A checkpoint is missing, incomplete, or does not fit the model."""


class DataError(NeoXError):
    """A data or tokenizer file is missing, malformed, or does not fit the request."""


class PassingError(NeoXError):
    """The run was broken off by something that need not come again: a process that hangs, a weight that changed in memory."""

    may_pass = True


class MissingRequirement(NeoXError):
    """An optional package that the configuration asks for is not installed."""
