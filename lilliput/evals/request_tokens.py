"""Token ids of requests, as lm-evaluation-harness's Hugging Face model encodes them, but all texts at once."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lilliput.evals.native_model import Native
from lilliput.evals.suites import Likelihood
from lilliput.tokenizer.bpe import END
from lilliput.tokenizer.encoder import Encoder

_PROBES = ("a", " b", "The fox,  1 < 23.\n\n", "é 中 🙂")

Ids = Sequence[int]


class RequestTokenizer:
    """Encodes texts as the tokenizer does that transformers makes of a model's files."""

    def __init__(self, model: Native):
        self._transformers: Any = None if model.tokenizer_folder is None else _from_transformers(model.tokenizer_folder)
        tokenizer, names = model.tokenizer, model.special_tokens
        if self._transformers is not None:
            backend = getattr(self._transformers, "backend_tokenizer", None)
            tokenizer = backend if isinstance(backend, Tokenizer) else tokenizer
            names = {name: getattr(self._transformers, name) for name in ("bos_token", "eos_token")}
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._encoder = Encoder(self._tokenizer, where="a text to evaluate")
        # The first token of a document is predicted from it; tokenizers without it fall back on BOS or EOS.
        lead = END if self._tokenizer.token_to_id(END) is not None else names.get("bos_token") or names.get("eos_token")
        identity = None if lead is None else self._tokenizer.token_to_id(lead)
        self.prefix_id = model.stop_ids[0] if identity is None else identity
        self._prefix = self._tokenizer.decode([self.prefix_id], skip_special_tokens=False)
        if self._transformers is not None and self._is_encoded_alike():
            self._transformers = None

    def encode(self, texts: Iterable[str], *, add_special_tokens: bool | None = None) -> dict[str, Ids]:
        """The ids of each text.

        Args:
            texts: are encoded once each.
            add_special_tokens: with what the tokenizer puts before and after a text; None for that, but for texts that
                already begin with the token that leads a document.
        """
        every = list(dict.fromkeys(texts))
        found: dict[str, Ids] = {}
        for added in (False, True) if add_special_tokens is None else (add_special_tokens,):
            part = every
            if add_special_tokens is None:
                part = [text for text in every if text.startswith(self._prefix) != added]
            if self._transformers is not None:
                found |= {text: self._transformers.encode(text, add_special_tokens=added) for text in part}
            else:
                found |= zip(part, self._encoder.stream(part, add_special_tokens=added), strict=True)
        return found

    def pairs(self, pairs: Sequence[tuple[str, str]], likelihood: Likelihood) -> list[tuple[Ids, Ids]]:
        """The ids of contexts and continuations.

        Both are encoded as one text, and cut where the context alone would end; spaces at its end belong to the
        continuation. A continuation of no context follows the token that leads a document.
        """
        alone = [continuation for context, continuation in pairs if not context]
        after_nothing = self.encode(alone, add_special_tokens=False)
        if likelihood == "joined":
            moved = [_with_spaces(*pair) for pair in pairs if pair[0]]
            # A context is encoded once for all its choices, where theirs may be encoded by themselves.
            apart = {pair for pair in moved if self._transformers is None and self._encoder.is_joint(*pair)}
            rests = self.encode((rest for _, rest in apart), add_special_tokens=False)
            wholes = self.encode(
                text for pair in moved for text in ((pair[0],) if pair in apart else (pair[0], "".join(pair)))
            )
            following = iter(
                [
                    (wholes[pair[0]], rests[pair[1]])
                    if pair in apart
                    else self._cut(wholes[pair[0]], wholes["".join(pair)])
                    for pair in moved
                ]
            )
        else:
            encoded = self.encode((text for pair in pairs if pair[0] for text in pair), add_special_tokens=False)
            following = iter([(encoded[context], encoded[rest]) for context, rest in pairs if context])
        return [next(following) if context else self._led(after_nothing[rest]) for context, rest in pairs]

    def decode(self, ids: Ids) -> str:
        """The text of ids, without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def text_of(self, identity: int) -> str:
        """The text of one id, a special token or not."""
        return self._tokenizer.decode([identity], skip_special_tokens=False)

    def _cut(self, head: Ids, whole: Ids) -> tuple[Ids, Ids]:
        return (head, whole[len(head) :]) if len(head) else self._led(whole)

    def _led(self, ids: Ids) -> tuple[Ids, Ids]:
        return (ids[:1], ids[1:]) if len(ids) and ids[0] == self.prefix_id else ([self.prefix_id], ids)

    def _is_encoded_alike(self) -> bool:
        """Return whether the native code that transformers calls gives the ids that it gives."""
        return all(
            self._transformers.encode(probe, add_special_tokens=added)
            == self._encoder.encode(probe, add_special_tokens=added).tolist()
            for probe in (*_PROBES, self._prefix)
            for added in (False, True)
        )


def _with_spaces(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _from_transformers(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
