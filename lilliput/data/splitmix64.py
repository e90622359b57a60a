"""The finalizer of splitmix64 (Steele et al. 2014, Fast splittable pseudorandom number generators), on arrays."""

import numpy as np


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Return 64-bit numbers, each a function of one number of which every bit depends on all.

    Args:
        numbers: uint64, of any shape.
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
