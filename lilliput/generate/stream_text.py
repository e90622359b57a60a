"""Text out: what a model writes after a prompt, streamed piece by piece."""

import warnings
from collections.abc import Callable, Collection, Generator, Sequence

from tokenizers import Tokenizer

from lilliput.generate.engine import Engine
from lilliput.generate.request import Prefix, Request
from lilliput.generate.sampling import Sampling
from lilliput.model import LanguageModel


def stream_text(
    engine: Engine, request: Request, keep: Callable[[Prefix], None] | None = None
) -> Generator[str, None, str]:
    """The continuation of a request, in pieces of whole characters, without what ends it.

    Warns where the text ends because the context is full.

    Args:
        engine: with a tokenizer.
        request: what to continue, and how.
        keep: is given the states at the end of the text.

    Returns:
        why it ended, as the generator's value: see `lilliput.generate.request.End`.
    """
    ended = "length"
    for _, token in engine.tokens([request]):
        if token.text:
            yield token.text
        if token.ended:
            ended = token.ended
            if keep is not None:
                keep(engine.save(token.number))
    if ended == "context":
        warnings.warn(
            'the text ended where the context was full: beyond="slide" lets the model read the last part of it alone',
            stacklevel=2,
        )
    return ended


def write_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_token_ids: Collection[int],
    max_new_tokens: int,
    context: int | None = None,
) -> list[str]:
    """Return the continuations of several prompts, decoded together, each as `stream_text` gives it.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        prompts: token ids of each prompt, at least one.
        sampling: sampling settings.
        stop_token_ids: ids that end a text.
        max_new_tokens: most tokens of a text.
        context: tokens that attention reads at once; of a longer text it reads the last ones. None for any number.
    """
    requests = [
        Request(prompt=prompt, sampling=sampling, stop_token_ids=stop_token_ids, max_new_tokens=max_new_tokens)
        for prompt in prompts
    ]
    engine = Engine(model, rows=max(1, len(prompts)), tokenizer=tokenizer, context=context, beyond="slide")
    texts = ["" for _ in prompts]
    for index, token in engine.tokens(requests):
        texts[index] += token.text
    return texts
