"""Evaluates the replies of an exported chat model to held-out questions: does it finish, and does it listen to the
question?

Works on any Hugging Face folder with a ChatML template, through transformers alone.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError, ExportError, reading
from lilliput.base.files import read_json
from lilliput.evals.offline import offline
from lilliput.evals.score import Score, against_chance, mean_stderr, when_alike
from lilliput.tokenizer.chatml import MESSAGE_END
from lilliput.tokenizer.template import render_template

TASK = "held-out questions"
ENDS = "replies that end by themselves"
PREFERS = "right answer preferred over a shuffled one"
RELEASE_FILE = "lilliput.json"


def judge_replies(
    folder: Path,
    conversations: Sequence[tuple[str, str]],
    *,
    work: Path,
    limit: int = 100,
    max_new_tokens: int = 128,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 16,
    trust_remote_code: bool = False,
) -> list[Score]:
    """Two scores on at most `limit` conversations, drawn without replacement by `seed`.

    `ENDS`: the share of greedy replies whose `<|im_end|>` is among the first `max_new_tokens` tokens. Decoding uses
    the folder's own repetition penalty (of `lilliput.json`, or of `generation_config.json` without it), and
    stops at its end tokens too.

    `PREFERS`: the share of questions under which the right answer, with its `<|im_end|>`, has a higher mean
    log-likelihood per token than another question's answer. The draw is a random order; the other answer is the next
    differing one in it, round and round, so every answer is tried as right and as wrong, and a model deaf to the
    question scores half. The mean decides because a sum would mostly ask which answer is shorter (the note gives the
    sum's share). Standard errors take the items as independent; neighbours share an answer, so the true one of
    `PREFERS` near chance is smaller. Where all answers are the same, or there is one, `ENDS` is the only score.

    Only conversations whose question leaves room for `max_new_tokens` in the model's window, and whose answer with its
    end has at most that many tokens, take part.

    Args:
        folder: config, weights, tokenizer with a chat template, and the model's own code where it has any. Models must
            honour `attention_mask`: prompts of a batch are padded on the left.
        conversations: (question, right answer), the first two turns of held-out conversations.
        work: the only folder written to.
        limit: conversations to judge.
        max_new_tokens: length of a reply that did not end.
        seed: of the draw.
        device: as torch names it.
        dtype: of the weights; log-likelihoods are always in float32.
        batch_size: rows of a forward pass.
        trust_remote_code: whether transformers may run the folder's own code.

    Raises:
        ExportError: the folder's tokenizer has no `<|im_end|>` or no chat template.
        NothingToJudge: no conversation fits.
    """
    with offline(work):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        end = tokenizer.get_vocab().get(MESSAGE_END)
        if end is None or not tokenizer.chat_template:
            raise ExportError(
                f"the tokenizer has no {MESSAGE_END} or no chat template",
                where=str(folder),
                hint="evaluate replies of an instruct release; a base model gives none",
            )
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_remote_code)
        model.to(device).eval()
        window = model.config.max_position_embeddings
        encoded = [_encode(tokenizer, question, answer, end) for question, answer in conversations]
        fitting = [one for one in encoded if len(one.prompt) + max_new_tokens <= window]
        fitting = [one for one in fitting if len(one.answer) <= max_new_tokens]
        if not fitting or limit < 1:
            raise NothingToJudge(
                f"{len(fitting)} of {len(conversations)} questions fit {window:,} tokens with a reply of "
                f"{max_new_tokens}, {limit} are to be judged",
                where="the held-out conversations to judge replies with",
                hint="hold out more conversations that begin with a question and an answer",
            )
        chosen = random.Random(seed).sample(fitting, min(limit, len(fitting)))
        penalty = _penalty(folder) or model.generation_config.repetition_penalty or 1.0
        ends = _ends_by_itself(model, chosen, penalty, end=end, most=max_new_tokens, batch_size=batch_size)
        others = _other_answers(chosen)
        if others is None:
            return [_score(ENDS, ends, chance=None, also=f"{PREFERS}: not judged, there is one answer alone")]
        rows = [
            (one.prompt, answer) for one, other in zip(chosen, others, strict=True) for answer in (one.answer, other)
        ]
        sums = _log_likelihoods(model, rows, batch_size=batch_size)
        means = [total / len(answer) for total, (_, answer) in zip(sums, rows, strict=True)]
        by_sum = _share_of_first(sums)
        prefers = _share_of_first(means)
        share = sum(by_sum) / len(by_sum)
        return [
            _score(ENDS, ends, chance=None),
            _score(PREFERS, prefers, chance=0.5, also=f"by summed log-likelihood: {share:.1%}"),
        ]


class NothingToJudge(DataError):
    """There is no conversation that replies could be judged by."""


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    prompt: list[int]
    """Ids of the question as the chat template asks it, up to where the reply starts."""
    answer: list[int]
    """Ids of the right answer, then `<|im_end|>`."""


def _encode(tokenizer: Any, question: str, answer: str, end: int) -> _Encoded:
    prompt = render_template(  # transformers would render a template of anybody's in this process, without limits
        tokenizer.chat_template,
        [{"role": "user", "content": question}],
        tokens={name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
        where="the chat template of the folder",
    )
    return _Encoded(
        prompt=tokenizer.encode(prompt, add_special_tokens=False),
        answer=[*tokenizer.encode(answer, add_special_tokens=False), end],
    )


def _penalty(folder: Path) -> float | None:
    """The repetition penalty that a release of ours writes with; None for other folders."""
    file = folder / RELEASE_FILE
    if not file.is_file():
        return None
    with reading(str(file), "publish or fetch the folder again"):
        return float(read_json(file)["generation"]["repetition_penalty"])


def _ends_by_itself(
    model: Any, chosen: list[_Encoded], penalty: float, *, end: int, most: int, batch_size: int
) -> list[bool]:
    """Return whether the greedy reply to each question stops, and stops with `end`."""
    import torch
    from transformers import GenerationConfig

    stops = {end, *_as_list(model.generation_config.eos_token_id)}
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        repetition_penalty=penalty,
        eos_token_id=sorted(stops),
        pad_token_id=end,
    )
    ended = [False] * len(chosen)
    for indices in _batches([len(one.prompt) for one in chosen], batch_size):
        prompts = [chosen[index].prompt for index in indices]
        width = max(map(len, prompts))
        # Padded with its own first token: a repetition penalty counts padding too, and that token is penalized anyway.
        ids = torch.tensor([[prompt[0]] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.no_grad():
            output = model.generate(
                ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
            )
        for index, reply in zip(indices, output[:, width:].tolist(), strict=True):
            ended[index] = next((token for token in reply if token in stops), None) == end
    return ended


def _other_answers(chosen: list[_Encoded]) -> list[list[int]] | None:
    """Return for each conversation the next answer in the (random) order that is not the same; None if all are."""
    answers = [one.answer for one in chosen]
    others = []
    for index, answer in enumerate(answers):
        later = answers[index + 1 :] + answers[:index]
        other = next((one for one in later if one != answer), None)
        if other is None:
            return None
        others.append(other)
    return others


def _log_likelihoods(model: Any, rows: list[tuple[list[int], list[int]]], *, batch_size: int) -> list[float]:
    """Summed log-likelihood of each (prompt, answer)'s answer, padded on the right: causal models do not see that."""
    import torch

    sums = [0.0] * len(rows)
    for indices in _batches([len(prompt) + len(answer) for prompt, answer in rows], batch_size):
        texts = [rows[index][0] + rows[index][1] for index in indices]
        width = max(map(len, texts))
        ids = torch.tensor([text + [text[0]] * (width - len(text)) for text in texts], device=model.device)
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=model.device)
        with torch.no_grad():
            logits = model(ids, attention_mask=mask).logits
        for index, row, text in zip(indices, logits, texts, strict=True):
            first = len(rows[index][0])
            answer = torch.tensor(text[first:], device=model.device)
            log_probabilities = row[first - 1 : len(text) - 1].float().log_softmax(-1)
            sums[index] = log_probabilities.gather(1, answer[:, None]).double().sum().item()
    return sums


def _batches(lengths: list[int], size: int) -> Iterator[list[int]]:
    """Places of items of like length, longest first."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _share_of_first(pairs: list[float]) -> list[bool]:
    return [first > second for first, second in zip(pairs[::2], pairs[1::2], strict=True)]


def _as_list(value: int | list[int] | None) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _score(metric: str, hits: list[bool], *, chance: float | None, also: str = "") -> Score:
    value, stderr = sum(hits) / len(hits), mean_stderr(hits)
    notes = (when_alike(hits), against_chance(value, stderr=stderr, chance=chance, items=len(hits)), also)
    return Score(
        task=TASK,
        metric=metric,
        value=value,
        stderr=stderr,
        chance=chance,
        items=len(hits),
        higher_is_better=True,
        note="; ".join(note for note in notes if note),
    )
