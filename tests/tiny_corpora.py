"""Hashes and ids of whole corpora, one item at a time: what those of token files are compared with."""

from collections.abc import Iterable
from itertools import chain

from tokenizers import Tokenizer

from lilliput.data.conversations import Conversation
from lilliput.data.documents import Document, TextHash
from lilliput.tokenizer.chatml import encode_messages


def corpus_hash(documents: Iterable[Document]) -> str:
    """Hex SHA-256 over ids and texts in order."""
    texts = TextHash()
    for document in documents:
        texts.add(document.id, document.text)
    return texts.hex()


def encode_chat(tokenizer: Tokenizer, conversation: Conversation) -> tuple[list[int], list[int]]:
    """Ids and loss mask of a conversation."""
    encoded = encode_messages(tokenizer, conversation.messages)
    return list(chain.from_iterable(ids for ids, _ in encoded)), list(chain.from_iterable(mask for _, mask in encoded))
