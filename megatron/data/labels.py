"""Label data: a second dataset of the same documents, which says token by token what is predicted.

Where a token is to be predicted, its label is the token itself; elsewhere it is PADDING (-100). Both datasets of a pair are written by one
run, document by document (GPT-NeoX: `train_label_data_paths`). That their documents have the same sizes is found out from the index
files before training; that the labels are those of the text, batch by batch as it is read (see loaders.py).

Documents without any token to predict are read like others. GPT-NeoX leaves them out where documents stay whole, which takes reading
all labels beforehand.
"""

from __future__ import annotations

import numpy as np

from megatron.data.batch import PADDING
from megatron.data.indexed_dataset import IndexedDataset, bin_path
from megatron.errors import DataError


def open_labels(path: str, text: IndexedDataset) -> IndexedDataset:
    """The label dataset at `path` that goes with the tokens of `text`.

    Raises DataError when it cannot hold labels, or its documents are not as many and as long as those of the text.
    """
    labels = IndexedDataset(path)
    if labels.dtype.kind != "i":
        raise DataError(
            f"{bin_path(labels.prefix)} holds {labels.dtype.name} values, which cannot be labels, as {PADDING} stands for no loss: "
            "name the dataset of labels, or write it again as int32."
        )
    _check_same_sizes(labels, text)
    return labels


def _check_same_sizes(labels: IndexedDataset, text: IndexedDataset) -> None:
    fix = "name the labels that were written together with this text, or tokenise the data again."
    if len(labels) != len(text):
        raise DataError(f"{labels.prefix} has labels of {len(labels)} documents, {text.prefix} has {len(text)}: {fix}")
    if np.array_equal(labels.sizes, text.sizes):
        return
    document = int(np.argmax(labels.sizes != text.sizes))
    raise DataError(
        f"document {document} has {int(labels.sizes[document])} labels in {labels.prefix} and {int(text.sizes[document])} tokens in "
        f"{text.prefix}: {fix}"
    )
