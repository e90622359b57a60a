"""The special tokens that a tokenizer's own file does not name: which one ends a document, and which only fills up."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lilliput.base.errors import DataError, reading
from lilliput.base.untrusted import read_object, shown


@dataclass(frozen=True, kw_only=True)
class Specials:
    """Special tokens by the part they play."""

    end: str
    """Ends a document, and as the first token of every document in token files, begins one too (eos)."""
    begin: str
    """Token that begins a text (bos)."""
    pad: str
    """Fills up the rows of a batch."""
    unknown: str | None = None
    """Stands for what cannot be encoded; None where everything can."""

    def names(self) -> dict[str, str]:
        """The tokens by their Hugging Face names."""
        named = {"bos_token": self.begin, "eos_token": self.end, "pad_token": self.pad}
        return named | ({} if self.unknown is None else {"unk_token": self.unknown})


def literal(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that reads the spelling of a special token inside a text as plain characters.

    Texts come from strangers: one that spells out `<|endoftext|>` must not be able to end a document.
    """
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    return copy


def id_of(tokenizer: Tokenizer, token: str, *, where: str) -> int:
    """The id of a token.

    Raises:
        DataError: the tokenizer does not have it.
    """
    identity = tokenizer.token_to_id(token)
    if identity is None:
        special = [added.content for added in tokenizer.get_added_tokens_decoder().values()][:_COMPARED]
        near = difflib.get_close_matches(token[:_COMPARED], special, n=3) or special[:8]
        raise DataError(
            f"the tokenizer has no token {shown(token)}",
            where=where,
            hint=f"name one that it has, such as {', '.join(token[:_COMPARED] for token in near) or 'none'}",
        )
    return identity


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id: rows that an embedding needs, whether every id below is used or not."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def read_specials(folder: Path, tokenizer: Tokenizer, end: str | None = None) -> Specials:
    """The special tokens of a Hugging Face folder, as its files name them; what they leave open is the end token.

    Args:
        folder: holds `tokenizer_config.json`, `special_tokens_map.json` or `config.json`, whichever say it.
        tokenizer: the folder's.
        end: the token that ends documents; None for the folder's eos token.

    Raises:
        DataError: no file names an eos token, a file is damaged, or the tokenizer lacks a token.
    """
    with reading(str(folder), "fetch it again", kind=DataError):
        return _specials(folder, tokenizer, end)


_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
_COMPARED = 200
"""Tokens, and letters of one, among which the nearest is looked for: that takes the square of it in time."""


def _specials(folder: Path, tokenizer: Tokenizer, end: str | None) -> Specials:
    named: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        plain = _read(folder / file)
        named |= {key: text for key in _NAMES if (text := _text(plain.get(key), key, folder / file)) is not None}
    config = _read(folder / "config.json")
    for key in _NAMES:
        key_of_id = key.replace("_token", "_token_id")
        for identity in _ids(config.get(key_of_id), key_of_id, folder / "config.json")[:1]:
            if key not in named and (token := tokenizer.id_to_token(identity)) is not None:
                named[key] = token
    end = end or named.get("eos_token")
    if end is None:
        raise DataError(
            "no file says which token ends a document (eos_token)",
            where=str(folder),
            hint="name it: PretrainedTokenizer(end=...)",
        )
    specials = Specials(
        end=end,
        begin=named.get("bos_token", end),
        pad=named.get("pad_token", end),
        unknown=named.get("unk_token"),
    )
    for token in specials.names().values():
        id_of(tokenizer, token, where=str(folder))
    return specials


def _read(path: Path) -> Mapping[str, Any]:
    return read_object(path, "fetch it again", kind=DataError) if path.is_file() else {}


def _text(token: Any, key: str, path: Path) -> str | None:
    """A token as Hugging Face files write it: its text, or a dict that has it, or null."""
    content = token.get("content") if isinstance(token, dict) else token
    if content is None or isinstance(content, str):
        return content
    raise DataError(f"{key} is {shown(token)}", where=str(path), hint="give the text of a token, or null")


def _ids(said: Any, key: str, path: Path) -> list[int]:
    """The id or ids of a token; below 0 is none, as early configs of Llama say it."""
    ids = said if isinstance(said, list) else [] if said is None else [said]
    for identity in ids:
        if type(identity) is not int or identity >= 1 << 32:
            raise DataError(f"{key} is {shown(said)}", where=str(path), hint="give the id of a token, a list, or null")
    return [identity for identity in ids if identity >= 0]
