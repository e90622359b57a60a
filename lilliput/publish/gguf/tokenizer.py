"""A tokenizer as GGUF has it: tokens, their types, merges, special ids, and llama.cpp's name of the pre-tokenizer.

llama.cpp splits a text by rules that its own code holds, each under a name; a file can only name one. A tokenizer whose
rules are not among them is refused: a file with another name would read texts otherwise than the model was trained on.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from lilliput.base.errors import ExportError
from lilliput.tokenizer.cuts import LLAMA3, QWEN2
from lilliput.tokenizer.specials import Specials, vocabulary_size

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens in GGUF."""
_WHERE = "the tokenizer of a release in the format gguf"
_HINT = "publish it as hf alone, or train with one that llama.cpp has, such as BPE(...)"
_BYTES_BY_REGEX = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES = _BYTES_BY_REGEX | {"use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}
_CONTROL = {*range(0x20), 0x7F} - set(b"\t\n\r")
_RARE = frozenset({*_CONTROL, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)})
"""Bytes of control characters other than tab and line ends, of planes of Unicode that nothing is assigned in, and those
that UTF-8 never has. Known tokenizers lack some (SmolLM2's 21). Tokenizers leaves them out before it merges, llama.cpp
afterwards, so that what stands around such a character can be other tokens."""


def tokenizer_metadata(tokenizer: Tokenizer, specials: Specials, stops: Sequence[int], rows: int) -> dict[str, Any]:
    """Return the entries of a GGUF file that make llama.cpp tokenize as a tokenizer does.

    Args:
        tokenizer: byte-level BPE.
        specials: its special tokens.
        stops: ids of the tokens that end a text, the usual one first.
        rows: rows of the embedding, each of which needs a token.

    Raises:
        ExportError: llama.cpp has no such tokenizer.
    """
    plain = json.loads(tokenizer.to_str())
    name = pre_tokenizer_name(plain)
    _check_model(plain)
    begins, ends = _added_by_template(tokenizer, specials, stops[0])
    tokens, kinds = _tokens(tokenizer, plain["added_tokens"], rows)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in plain["model"]["merges"]]
    ids = {"bos": specials.begin, "padding": specials.pad, "unknown": specials.unknown}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": stops[0],
        **({"tokenizer.ggml.eot_token_id": stops[1]} if len(stops) > 1 else {}),
        **{f"tokenizer.ggml.{key}_token_id": tokenizer.token_to_id(token) for key, token in ids.items() if token},
        "tokenizer.ggml.add_bos_token": begins,
        "tokenizer.ggml.add_eos_token": ends,
    }


def pre_tokenizer_name(plain: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the rules by which a tokenizer (its JSON) splits texts into words.

    Raises:
        ExportError: it has none for them.
    """
    if plain["normalizer"] is not None:
        raise _refusal(f"it changes texts before it reads them (normalizer {plain['normalizer']['type']})")
    before: dict[str, Any] = plain["pre_tokenizer"] or {"type": "none"}
    steps = [_rule(step) for step in before.get("pretokenizers", [before])]
    name = next((name for name, rules in _RULES.items() if rules == steps), None)
    if name is None:
        said = json.dumps(before, ensure_ascii=False)
        raise _refusal(f"llama.cpp knows no pre-tokenizer like {said if len(said) < 200 else said[:197] + '...'}")
    if bool(plain["model"].get("ignore_merges")) != (name in _IGNORES_MERGES):
        ignored = "merges words that are tokens themselves" if name in _IGNORES_MERGES else "takes them whole"
        raise _refusal(f"with the pre-tokenizer {name!r} llama.cpp does not do what this one does, which {ignored}")
    return name


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


_RULES: dict[str, list[dict[str, Any]]] = {
    "smollm": [_DIGITS, _BYTES_BY_REGEX],
    "gpt-2": [_BYTES_BY_REGEX],
    "llama-bpe": [_split(LLAMA3), _BYTES],
    "qwen2": [_split(QWEN2), _BYTES],
}
"""Steps of tokenizers by the name of the same in llama.cpp."""
_IGNORES_MERGES = {"llama-bpe"}
"""Names under which llama.cpp takes a word that is a token as that token, whatever the merges would make of it."""


def _rule(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a step decides where it splits."""
    return {key: value for key, value in step.items() if key != "trim_offsets"}


def _check_model(plain: Mapping[str, Any]) -> None:
    model = plain["model"]
    if model["type"] != "BPE":
        raise _refusal(f"it is no BPE but {model['type']}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise _refusal(f"its BPE has {key}={model[key]!r}")
    lacking = {byte for byte, letter in _letters().items() if letter not in model["vocab"]}
    if lacking - _RARE:
        raise _refusal(f"it has no token for {len(lacking - _RARE)} of the bytes that texts have")
    if lacking and model["unk_token"] is not None:
        raise _refusal(f"bytes that it has no token for are {model['unk_token']!r}, and llama.cpp leaves them out")
    for token in plain["added_tokens"]:
        if odd := [key for key in ("lstrip", "rstrip", "single_word") if token[key]]:
            raise _refusal(f"the token {token['content']!r} takes the blanks or words around it in ({', '.join(odd)})")


def _letters() -> dict[int, str]:
    """Return the letter that stands for each byte: its own where it is printable, others in order of the bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = {ord(letter): letter for letter in alphabet if ord(letter) < 256}
    others = (letter for letter in alphabet if ord(letter) >= 256)
    return own | {byte: next(others) for byte in range(256) if byte not in own}


def _tokens(tokenizer: Tokenizer, added: list[dict[str, Any]], rows: int) -> tuple[list[str], list[int]]:
    """Return a token and its type for every row of the embedding; rows without one get a name that no text has."""
    tokens, kinds = [f"[PAD{identity}]" for identity in range(rows)], [UNUSED] * rows
    assert vocabulary_size(tokenizer) <= rows, "a release has a row for every token"
    for token, identity in tokenizer.get_vocab(with_added_tokens=True).items():
        tokens[identity], kinds[identity] = token, NORMAL
    for token in added:
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    if len(set(tokens)) < rows:
        raise _refusal("a token is spelled like the placeholder of a row without one, such as [PAD0]")
    return tokens, kinds


def _added_by_template(tokenizer: Tokenizer, specials: Specials, stop: int) -> tuple[bool, bool]:
    """Return whether the tokenizer puts its begin token before a text, and its end behind it."""
    text = "a"
    inside = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.encode(text).ids
    begin = tokenizer.token_to_id(specials.begin)
    for begins in (False, True):
        for ends in (False, True):
            if whole == [begin] * begins + inside + [stop] * ends:
                return begins, ends
    raise _refusal(f"it adds tokens around a text that are not its begin and its end: {whole} for {text!r}")


def _refusal(what: str) -> ExportError:
    return ExportError(f"llama.cpp cannot tokenize as this tokenizer does: {what}", where=_WHERE, hint=_HINT)
