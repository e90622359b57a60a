"""Answers in the form of OpenAI's API: whole, or in pieces; of chats, or of completions."""

from collections.abc import Sequence
from typing import Any

from lilliput.generate.request import End, Token
from lilliput.serve.call import Call
from lilliput.serve.token_text import TokenText

FINISH: dict[End, str] = {"stop": "stop", "length": "length", "context": "length"}
OUT_OF_TIME = "timeout"
"""Reason for a text to end that OpenAI's API does not have: the server's time for a request was up."""
LEAST = -9999.0
"""Log-probability of what cannot come."""
FINISH_REASONS = ("stop", "length", OUT_OF_TIME)


class Answer:
    """Text and tokens of a call so far.

    Args:
        call: that is answered.
        token_text: names tokens, for log-probabilities.
    """

    def __init__(self, call: Call, token_text: TokenText):
        self._call, self._names = call, token_text
        self._choices = [_Choice() for _ in call.requests]

    @property
    def completion_tokens(self) -> int:
        """Return how many tokens were written."""
        return sum(choice.tokens for choice in self._choices)

    @property
    def has_begun(self) -> bool:
        """Return whether there is a token."""
        return self.completion_tokens > 0

    def add(self, batch: Sequence[tuple[int, Token]]) -> list[dict[str, Any]]:
        """Add tokens, and return them as the pieces that a stream sends: one for each choice."""
        pieces = {}
        for index, token in batch:
            choice = self._choices[index]
            piece = pieces.setdefault(index, _Choice(offset=len(choice.text)))
            for one in (choice, piece):
                one.add(token, is_listed=token.token not in self._call.requests[index].stop_token_ids)
        return [self._piece(index, piece) for index, piece in sorted(pieces.items())]

    def end(self) -> list[dict[str, Any]]:
        """End what has not ended, because its time is up; return that as pieces."""
        left = [index for index, choice in enumerate(self._choices) if choice.finish is None]
        for index in left:
            self._choices[index].finish = OUT_OF_TIME
        return [self._piece(index, _Choice(finish=OUT_OF_TIME)) for index in left]

    def first(self) -> list[dict[str, Any]]:
        """Return what a stream begins with: the role of a chat's message."""
        if self._call.kind == "completion":
            return []
        first = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk([_chat_piece(index, first, None, None)]) for index in range(len(self._choices))]

    def last(self) -> list[dict[str, Any]]:
        """Return what a stream ends with: the counts of tokens, if they were asked for."""
        return [self._chunk([]) | {"usage": self._usage()}] if self._call.include_usage else []

    def whole(self) -> dict[str, Any]:
        """Return the answer in one piece."""
        choices = []
        for index, choice in enumerate(self._choices):
            about = {"index": index, "logprobs": self._logprobs(choice), "finish_reason": choice.finish}
            if self._call.kind == "chat":
                about["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
            else:
                about["text"] = choice.text
            choices.append(about)
        name = "chat.completion" if self._call.kind == "chat" else "text_completion"
        return self._about(name) | {"choices": choices, "usage": self._usage()}

    def _piece(self, index: int, piece: "_Choice") -> dict[str, Any]:
        logprobs = self._logprobs(piece)
        if self._call.kind == "chat":
            delta = {"content": piece.text} if piece.text or not piece.finish else {}
            return self._chunk([_chat_piece(index, delta, logprobs, piece.finish)])
        return self._chunk([{"index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish}])

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        name = "chat.completion.chunk" if self._call.kind == "chat" else "text_completion"
        usage = {"usage": None} if self._call.include_usage else {}
        return self._about(name) | {"choices": choices} | usage

    def _about(self, name: str) -> dict[str, Any]:
        call = self._call
        return {"id": call.id, "object": name, "created": call.created, "model": call.model}

    def _usage(self) -> dict[str, Any]:
        read, written = self._call.prompt_tokens, self.completion_tokens
        cached = sum(choice.cached_tokens for choice in self._choices[:: self._call.choices_per_prompt])
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _logprobs(self, choice: "_Choice") -> dict[str, Any] | None:
        if not self._call.logprobs:
            return None
        if self._call.kind == "chat":
            return {"content": [self._chat_logprob(token) for token in choice.listed], "refusal": None}
        offsets, end = [], choice.offset
        for token in choice.listed:
            offsets.append(end)
            end += len(token.text)
        return {
            "tokens": [self._names.named(token.token)[0] for token in choice.listed],
            "token_logprobs": [_finite(token.log_probability) for token in choice.listed],
            "top_logprobs": [
                {self._names.named(one)[0]: _finite(score) for one, score in token.top} for token in choice.listed
            ],
            "text_offset": offsets,
        }

    def _chat_logprob(self, token: Token) -> dict[str, Any]:
        top = [self._named(one, score) for one, score in token.top]
        return self._named(token.token, token.log_probability) | {"top_logprobs": top}

    def _named(self, token: int, score: float | None) -> dict[str, Any]:
        text, spelling = self._names.named(token)
        return {"token": text, "bytes": spelling, "logprob": _finite(score)}


class _Choice:
    """Text and tokens of one request, or a part of them.

    Args:
        offset: characters before it.
        finish: why it ended.
    """

    def __init__(self, offset: int = 0, finish: str | None = None):
        self.text, self.tokens, self.cached_tokens = "", 0, 0
        self.listed: list[Token] = []
        """Tokens whose log-probabilities are returned: all but one that ends the text."""
        self.offset, self.finish = offset, finish

    def add(self, token: Token, *, is_listed: bool) -> None:
        """Add a token."""
        self.text += token.text
        self.tokens += 1
        self.cached_tokens = token.cached_tokens
        if is_listed:
            self.listed.append(token)
        if token.ended:
            self.finish = FINISH[token.ended]


def _chat_piece(index: int, delta: dict[str, Any], logprobs: Any, finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _finite(score: float | None) -> float:
    """Return a log-probability as JSON can hold it."""
    return score if score is not None and score > LEAST else LEAST
