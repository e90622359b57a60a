"""Prefix tokens: for each token of a vocabulary, the longest other token that its bytes begin with.

A model may be charged for them beside the true tokens (`PrefixToken`): " learning" is then half right with " learn".
What they are follows from the tokenizer alone, whose hash every token file names.
"""

import json

import numpy as np
from tokenizers import Tokenizer, decoders, models

from lilliput.base.errors import DataError
from lilliput.tokenizer.specials import vocabulary_size

PREFIX_TOKENS = "prefix_tokens"
"""Extra of a batch: the prefix token of each token [B, T], int32; `NO_PREFIX` if none."""
NO_PREFIX = -1


def prefix_table(tokenizer: Tokenizer) -> np.ndarray:
    """Return the id of the prefix token of every id, [V] int32.

    It is `NO_PREFIX` for tokens of one byte, for tokens of which no beginning is a token, and for those that were added
    to the vocabulary, such as special tokens; these are no prefix tokens either.

    Args:
        tokenizer: with BPE over bytes.

    Raises:
        DataError: it is another kind of tokenizer.
    """
    if not (isinstance(tokenizer.model, models.BPE) and isinstance(tokenizer.decoder, decoders.ByteLevel)):
        raise DataError(
            f"the tokens of this tokenizer are not spelled in bytes: it is {type(tokenizer.model).__name__} with the "
            f"decoder {type(tokenizer.decoder).__name__}, not BPE with ByteLevel",
            where="Mixture(prefix_tokens=True)",
            hint="use the tokenizer BPE(...), or leave prefix_tokens out",
        )
    vocab: dict[str, int] = json.loads(tokenizer.model.__getstate__())["vocab"]
    added = tokenizer.get_added_tokens_decoder()
    spelled = {token: identity for token, identity in vocab.items() if identity not in added}  # a letter is a byte
    table = np.full(vocabulary_size(tokenizer), NO_PREFIX, dtype=np.int32)
    for token, identity in spelled.items():
        shorter = (token[:size] for size in range(len(token) - 1, 0, -1))
        table[identity] = next((spelled[prefix] for prefix in shorter if prefix in spelled), NO_PREFIX)
    return table
