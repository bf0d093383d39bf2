"""`split: "969, 30, 1"` divides the documents of a dataset, in file order, into train, valid and test.

Each boundary is the running sum of round(share * documents). When the last boundary misses the number of documents by d, d is taken
from every boundary, as GPT-NeoX does; so the same split string gives the same documents there and here.
"""

from __future__ import annotations

from itertools import pairwise

from megatron.errors import DataError

PARTS = ("train", "valid", "test")


def parse_split(text: str) -> tuple[float, float, float]:
    """The three shares of a split string (`,` or `/` between them, missing ones are 0), divided by their sum.

    Raises DataError when it is not one to three numbers, one is negative, or all are 0.
    """
    fields = [field.strip() for field in text.replace("/", ",").split(",")]
    try:
        shares = [float(field) for field in fields]
    except ValueError:
        shares = []
    # `not (share >= 0)` also refuses nan.
    if (
        not 1 <= len(shares) <= len(PARTS)
        or any(not (0 <= share < float("inf")) for share in shares)
        or not sum(shares)
    ):
        raise DataError(
            f'"split" is "{text}": give one to three numbers, none negative and not all 0, for train, valid and test, '
            'such as "969, 30, 1".'
        )
    total = sum(shares)
    train, valid, test = [share / total for share in shares + [0.0] * (len(PARTS) - len(shares))]
    return train, valid, test


def split_documents(text: str, documents: int) -> dict[str, range]:
    """The documents of each part, by name ("train", "valid", "test"); consecutive ranges that cover 0 .. documents - 1."""
    boundaries = [0]
    for share in parse_split(text):
        boundaries.append(boundaries[-1] + round(share * float(documents)))
    excess = boundaries[-1] - documents
    # An empty first part can be pushed below 0, where the original would read the last document twice.
    boundaries[1:] = [max(boundary - excess, 0) for boundary in boundaries[1:]]
    return {part: range(*ends) for part, ends in zip(PARTS, pairwise(boundaries), strict=True)}
