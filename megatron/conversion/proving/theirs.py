"""A directory of Hugging Face transformers computed by that library: in fp32, from the files there alone, without a line of ours in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.conversion.mapping.choose import family_of
from megatron.conversion.proving.prompts import compared_positions
from megatron.errors import CheckpointError, MissingRequirement

LONGEST_REASON = 300
"""Characters of what transformers says, which may be pages."""


class TheirModel:
    """The model of a directory with a `config.json`, whole in memory. version: of transformers.

    Raises MissingRequirement without transformers; CheckpointError when it does not know the class, or a name or shape in the files is not
    what it expects. Methods raise CheckpointError when it cannot compute the model.
    """

    def __init__(self, directory: Path) -> None:
        transformers = import_transformers()
        self.version: str = transformers.__version__
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        (named,) = config["architectures"]
        self.architecture = family_of(config).name_in_transformers(named)
        build = getattr(transformers, self.architecture, None)
        if build is None:
            raise CheckpointError(f"transformers {self.version} has no {self.architecture}")
        try:
            self._model, told = build.from_pretrained(
                directory,
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # what may be wrong with a configuration has no common base there
            raise CheckpointError(f"transformers {self.version} cannot load it: {reason_of(error)}") from error
        problems = [f"{kind.replace('_', ' ')} {sorted(map(str, found))}" for kind, found in told.items() if found]
        if problems:
            raise CheckpointError(f"transformers {self.version} loads it with {'; '.join(problems)}")
        self._model.eval()
        # Scores are those of the last token; with a token for padding, a prompt that ends with it would be scored before its end.
        self._model.config.pad_token_id = None

    @torch.inference_mode()
    def continuation(self, tokens: Tensor, count: int) -> list[int]:
        """The `count` tokens that follow int64 [1, s], each the most likely one, computed with transformers' cache."""
        found: list[int] = []
        cache: Any = None
        new = tokens
        for _ in range(count):
            output = self._run(input_ids=new, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            found.append(int(output.logits[0, -1].argmax()))
            new = torch.tensor([found[-1:]])
        return found

    @torch.inference_mode()
    def outputs(self, tokens: Tensor) -> Tensor:
        """Logits [compared positions, v] of int64 [1, s]; of a classifier the scores of the last token, [labels]."""
        logits: Tensor = self._run(input_ids=tokens, use_cache=False).logits[0]
        return logits if logits.dim() == 1 else logits[compared_positions(tokens.shape[1])].clone()

    @torch.inference_mode()
    def hidden_states(self, tokens: Tensor) -> list[Tensor]:
        """Hidden states [s, h] behind the embedding, each block but the last, and the final norm."""
        output = self._run(input_ids=tokens, use_cache=False, output_hidden_states=True)
        return [hidden[0] for hidden in output.hidden_states]

    def _run(self, **inputs: Any) -> Any:
        try:
            return self._model(**inputs)
        except Exception as error:
            raise CheckpointError(f"transformers {self.version} cannot compute it: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """What an exception of transformers says, on one line."""
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


def import_transformers() -> Any:
    """The package, without its bars and remarks. Raises MissingRequirement."""
    try:
        import transformers
    except ImportError as error:
        raise MissingRequirement(
            "a conversion is proven by running the result with Hugging Face transformers, which is not installed: "
            "pip install -r requirements/requirements-transformers.txt"
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
