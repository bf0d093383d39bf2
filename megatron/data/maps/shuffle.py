"""`RandomState.shuffle`, at several times its speed for arrays that do not fit the processor's caches.

Shuffling swaps each item, from the last to the second, with one before it or itself. In a large array nearly every swap waits for
memory. Here a block of numbers is drawn ahead, so that the memory of a whole block is asked for at once and arrives in the time of a
few single waits. The numbers are drawn as numpy draws them: of a word of 32 random bits the lowest that can hold the index of the item
are kept, and a number beyond that index is thrown away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.maps.compiled import compiled

SMALLEST = 1 << 24  # items; importing numba and translating takes longer than fewer save
LARGEST = 1 << 32  # items; beyond them numpy draws from 64 bits
BLOCK = 1 << 12  # words drawn ahead; their places in the array fit a second-level cache


def shuffle(values: NDArray[Any], random: np.random.RandomState) -> None:
    """Shuffle `values` [n] in place; they and `random` end exactly as after `random.shuffle(values)`."""
    if SMALLEST <= len(values) <= LARGEST:
        _shuffle_in_blocks(values, random)
    else:
        random.shuffle(values)


def _shuffle_in_blocks(values: NDArray[Any], random: np.random.RandomState) -> None:
    swap = compiled(_swap_block)
    places = np.empty(BLOCK, dtype=np.int64)
    last, used = len(values) - 1, 0
    before = random.get_state(legacy=False)
    while last > 0:
        if last <= BLOCK:  # this block can be the one that is drawn too far
            before = random.get_state(legacy=False)
        last, used, _ = swap(values, last, _draw(BLOCK, random), places)
    random.set_state(before)
    _draw(used, random)


def _draw(count: int, random: np.random.RandomState) -> NDArray[np.uint32]:
    """The next `count` words of 32 random bits."""
    return random.randint(0, 1 << 32, size=count, dtype=np.uint32)


def _swap_block(
    values: NDArray[Any], last: int, words: NDArray[np.uint32], places: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Swap item `last` and those before it as long as `words` last: the item to go on with, how many words were used, and a sum.

    places: room for one number per word. The sum means nothing: it is there so that the loads that form it are made.
    """
    mask = last
    for shift in (1, 2, 4, 8, 16):
        mask |= mask >> shift
    item, drawn, used = last, 0, 0
    while used < len(words) and item > 0:
        if item <= mask >> 1:
            mask >>= 1
        place = np.int64(words[used]) & mask
        used += 1
        places[drawn] = place
        accepted = int(place <= item)
        drawn += accepted
        item -= accepted
    touched = 0
    for number in range(drawn):
        touched += values[places[number]]
    for number in range(drawn):
        place = places[number]
        kept = values[last - number]
        values[last - number] = values[place]
        values[place] = kept
    return item, used, touched
