"""The most that a tokenizer.json can make of a text, read off its JSON before any of it runs.

The rules of a tokenizer run in native code, which neither time nor memory limits reach. Twenty of them that write "aa"
for "a" make a million letters of one.
"""

import base64
import re
import struct
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from lilliput.base.errors import DataError
from lilliput.base.limits import limit, raising
from lilliput.base.untrusted import shown

_INSIDE = ("normalizers", "pretokenizers", "processors", "decoders")
"""Keys of the steps in a sequence."""
_LETTER = r"(\\[sSdDwW.*+?()\[\]{}|/-]|\[[^\[\]\\]+\]|[^\\\[\](){}*?|^$.+])"
_NEVER_EMPTY = re.compile(_LETTER + r"(\+|\{[1-9][0-9]{0,3},?\})?")
"""Regular expressions of one letter or class, which match no empty text. Whatever is longer may match one."""


def check_bounds(plain: Any, where: str) -> None:
    """Refuse a tokenizer that makes too much of a little.

    The steps of a stage take a text one after the other, so their factors multiply: those before the model, which write
    other letters, with those behind it, which copy the tokens; and those that make a text of tokens again. What Unicode
    itself makes of a letter, 18 at most, is not the file's doing and counts as 1.

    Args:
        plain: the file's JSON.
        where: the file.

    Raises:
        DataError: it is no tokenizer, or exceeds a limit: `tokenizer_growth`, `tokenizer_steps`, `token_characters`.
    """
    if not isinstance(plain, dict) or not isinstance(plain.get("model"), dict):
        raise DataError("it is not a tokenizer: it has no model", where=where, hint="fetch the file again")
    before, behind, back = (
        [step for stage in stages for step in _steps(plain.get(stage))]
        for stages in (("normalizer", "pre_tokenizer"), ("post_processor",), ("decoder",))
    )
    _check(len(before) + len(behind) + len(back), "steps are taken", "tokenizer_steps", where)
    copies, added = prod(map(_copies, behind)), sum(map(_added, behind))
    for number, of in (
        (prod(map(_growth, before)) * copies, "tokens can come of one character"),
        (added * copies, "special tokens are added to a text"),
        (prod(map(_growth, back)), "characters can come of one in a token"),
    ):
        _check(number, of, "tokenizer_growth", where)
    _check(_longest_token(plain), "characters are in one token", "token_characters", where)
    word = plain["model"].get("max_input_chars_per_word")  # WordPiece takes the square of it in time
    _check(word if isinstance(word, int) else 0, "letters are taken for one word", "token_characters", where)


def _check(number: float, of: str, most: str, where: str) -> None:
    if number > limit(most):
        raise DataError(f"{number:,.0f} {of}, {limit(most):,} at most", where=where, hint=raising(most))


def _steps(step: Any) -> Iterator[Mapping[str, Any]]:
    """A step with all that are inside it; what is no step at all, the library refuses."""
    if isinstance(step, dict):
        yield step
        for inside in _INSIDE:
            for part in _listed(step.get(inside)):
                yield from _steps(part)


def _growth(step: Mapping[str, Any]) -> float:
    """Characters (or tokens) that a step makes of one at most, told by its entries: old files name no types."""
    grown = 1.0
    if "content" in step and "pattern" in step:  # Replace
        grown *= _replaced(step["pattern"], len(_text(step["content"])))
    if "prepend" in step:  # Prepend
        grown *= 1 + len(_text(step["prepend"]))
    if "precompiled_charsmap" in step:
        grown *= _longest_replacement(_text(step["precompiled_charsmap"]))
    if "replacement" in step:  # Metaspace
        grown *= 1 if step.get("prepend_scheme") == "never" else 2
    elif "add_prefix_space" in step or step.get("type") == "ByteLevel":  # bytes of a letter are letters, of bytes again
        grown *= 2 if step.get("add_prefix_space") is False else 4
    if step.keys() & {"word_delimiter_token", "suffix", "prefix"}:  # CTC, BPEDecoder, WordPiece: a blank for a mark
        grown *= 2
    return grown


def _replaced(pattern: Any, written: int) -> float:
    text = _text(pattern.get("String")) if isinstance(pattern, dict) else ""
    if text:
        return max(1.0, written / len(text))
    regex = _text(pattern.get("Regex")) if isinstance(pattern, dict) else ""
    return max(1, written) if _NEVER_EMPTY.fullmatch(regex) else 1 + written


def _longest_replacement(charsmap: str) -> int:
    """Return the longest replacement in SentencePiece's table of letters: a trie after its length in bytes, then texts
    that end in a zero byte.
    """
    table = base64.b64decode(charsmap)
    (size,) = struct.unpack_from("<I", table)
    return max(len(text.decode("utf-8", "replace")) for text in table[4 + size :].split(b"\0")) or 1


def _copies(step: Mapping[str, Any]) -> int:
    """Return how often a step behind the model writes a text: a template may name it again and again."""
    single, pair = ([piece for piece in _listed(step.get(kind)) if "Sequence" in piece] for kind in ("single", "pair"))
    return max(1, len(single), len(pair) - 1)  # a pair is of two texts


def _added(step: Mapping[str, Any]) -> int:
    """Special tokens that a step behind the model adds to a text at most."""
    tokens = step.get("special_tokens")
    values = list(tokens.values()) if isinstance(tokens, dict) else _listed(tokens)
    longest = max((len(_listed(value.get("ids"))) for value in values if isinstance(value, dict)), default=0)
    pieces = max(len(_listed(step.get(kind))) for kind in ("single", "pair"))
    return max(pieces * longest, len(step.keys() & {"cls", "sep"}))


def _longest_token(plain: Mapping[str, Any]) -> int:
    model = plain["model"]
    vocab = model.get("vocab")
    tokens = list(vocab) if isinstance(vocab, dict) else [pair[0] for pair in _listed(vocab) if pair]
    tokens += [token.get("content") for token in _listed(plain.get("added_tokens")) if isinstance(token, dict)]
    tokens += [model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token")]
    return max(map(len, map(_text, tokens)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `object_pairs_hook`: with an entry there twice, two readers could see two tokenizers.

    Raises:
        ValueError: an entry is there twice.
    """
    plain = dict(pairs)
    if len(plain) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{shown(twice)} is there twice")
    return plain
