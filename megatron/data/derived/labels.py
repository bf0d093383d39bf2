"""Labels: beside a dataset of tokens another one of the same documents, which has the token where it is trained on and -100 elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.encoding.worker import Output
from megatron.errors import DataError

NOT_TRAINED = -100
LABEL_DTYPE = np.dtype("<i4")


def label_output(key: str) -> Output:
    """The labels of the tokens under `key`."""
    return Output(f"{key}_label", LABEL_DTYPE)


def labels_of(ids: NDArray[Any], trained: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The labels of tokens `ids` [n], of which those are trained on where `trained` [n] is true: int32 [n]."""
    return np.where(trained, ids.astype(LABEL_DTYPE), LABEL_DTYPE.type(NOT_TRAINED))


def check_distinct(outputs: Iterable[Output]) -> None:
    """Raise DataError when two outputs would be one file, as a key may be named like what is made of another."""
    names = [output.name for output in outputs]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f'--jsonl-keys has "{name}", which is also the name of what is made from another key: rename one.'
            )
