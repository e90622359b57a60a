"""Text out: what a model writes after a prompt, streamed piece by piece."""

from collections.abc import Collection, Generator, Iterable, Sequence

from tokenizers import Tokenizer

from lilliput.generate.engine import Engine, Request
from lilliput.generate.sampling import Sampling
from lilliput.model import LanguageModel

_BEFORE = "a"
"""Tokenizers from SentencePiece drop a blank at the beginning of what they decode, so something stands before it."""


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    stop_token_ids: Collection[int],
    max_new_tokens: int,
    seed: int = 0,
) -> Generator[str, None, str]:
    """The continuation of `prompt`, at least one id, in pieces of whole characters, without the token that ends it.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        prompt: token ids.
        sampling: sampling settings.
        stop_token_ids: ids that end the text.
        max_new_tokens: most tokens to generate.
        seed: random seed.

    Returns:
        why it ended, as the generator's value: see `detokenize_stream`.
    """
    request = Request(
        prompt=prompt,
        sampling=sampling,
        stop_token_ids=stop_token_ids,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    return detokenize_stream(Engine(model).stream(request), tokenizer, stop_token_ids)


def write_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_token_ids: Collection[int],
    max_new_tokens: int,
) -> list[str]:
    """Return the continuations of several prompts, decoded together, each as `stream_text` gives it.

    Args:
        model, tokenizer, sampling, stop_token_ids, max_new_tokens: see `stream_text`.
        prompts: token ids of each prompt.
    """
    requests = [
        Request(prompt=prompt, sampling=sampling, stop_token_ids=stop_token_ids, max_new_tokens=max_new_tokens)
        for prompt in prompts
    ]
    tokens: list[list[int]] = [[] for _ in prompts]
    for number, token in Engine(model, rows=max(1, len(prompts))).generate(requests):
        tokens[number].append(token)
    return ["".join(detokenize_stream(text, tokenizer, stop_token_ids)) for text in tokens]


def detokenize_stream(
    tokens: Iterable[int], tokenizer: Tokenizer, stop_token_ids: Collection[int]
) -> Generator[str, None, str]:
    """The text of tokens as they come, in pieces of whole characters, as far as the first of `stop_token_ids`.

    Returns:
        why it ended: `stop` by a token that does, or `length` where there were no more tokens.
    """
    ended = "length"
    written = tokenizer.encode(_BEFORE, add_special_tokens=False).ids
    shown = tokenizer.decode(written, skip_special_tokens=False)
    for token in tokens:
        if token in stop_token_ids:
            ended = "stop"
            break
        written.append(token)
        text = tokenizer.decode(written, skip_special_tokens=False)
        if not text.endswith("\ufffd"):  # the bytes of a character may be spread over tokens
            yield text[len(shown) :]
            shown = text
    rest = tokenizer.decode(written, skip_special_tokens=False)[len(shown) :]
    if rest:
        yield rest
    return ended
