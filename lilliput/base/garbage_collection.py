"""Python's search for cycles of garbage, made rarely while very many objects are kept.

What nothing refers to is freed at once. Only objects that refer to each other have to be searched for, among all that
there are, again and again as they get more. To read, ask and judge 16,000 questions makes millions of objects, none of
them garbage: the search took a sixth of all the time that an evaluation needs besides the model.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS = 100_000
"""New objects before they are searched. Python's own figure is 700, or 2,000 in later versions."""
SEARCHES = 50
"""Searches of new objects before one of older ones. Python's own figure is 10."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Search rarely for the length of a `with` block, or of a function that this decorates.

    Cycles of garbage stay longer, so this is for work that makes few of them, or small ones. A frame that failed for
    want of memory is a cycle with all its tensors: training is left to Python's own figures.

    The thresholds are those of the process, whatever thread has the block.
    """
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS, SEARCHES, SEARCHES)
    try:
        yield
    finally:
        gc.set_threshold(*before)
