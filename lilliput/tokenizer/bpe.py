"""Byte-level BPE: every text is encodable, every id decodes to bytes, and llama.cpp has the pre-tokenizer.

Id 0 is `<|endoftext|>`. It begins every document, so it both starts a text (bos) and, as a target, ends one (eos).
Tokenizers from elsewhere are read and written here too; what plays that part in them, `Specials` says.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lilliput.base.errors import DataError, LilliputError, RecipeError, reading
from lilliput.base.files import hash_of, write_json, write_text
from lilliput.base.spec import to_plain
from lilliput.base.untrusted import check_size
from lilliput.tokenizer.bounds import check_bounds, unique
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, MESSAGE_END, has_chatml
from lilliput.tokenizer.cuts import Cuts, cuts_of
from lilliput.tokenizer.native import native, quiet
from lilliput.tokenizer.specials import Specials

END = "<|endoftext|>"
"""The token that begins every document."""
END_ID = 0
"""The id of `END` in every tokenizer of ours."""
PAD = "<|pad|>"
"""The token that fills up rows of a batch. It is in no text: a model that is tuned with rows filled up by `END` instead
would have `END` left out of its loss, and never learn to stop."""
OURS = Specials(end=END, begin=END, pad=PAD)
"""The special tokens of every tokenizer of ours."""
TOKENIZER_FILE = "tokenizer.json"
LONGEST_WORD = 1_024
"""Characters of a word that merges are learned from; ordinary text has no longer ones."""
_SPECIALS = (END, PAD)
_BYTES = 256
_PROBE = f"Any text, such as 1,234 words:\n\tx = y  # é 中 🙂 {'a' * 40}!"
"""Every tokenizer has to read this."""


@dataclass(frozen=True, kw_only=True)
class BPE:
    """A byte-level BPE tokenizer, trained on the beginning of a corpus."""

    vocab: int
    """Number of ids: `END`, `PAD`, 256 bytes, merges."""
    at_most: bool = False
    """Have fewer ids where the text has no more pairs to merge, and a model of this vocabulary fewer with it."""
    digits: bool = True
    """Every digit is a token of its own; else digits merge like letters."""
    sample_bytes: int = 20_000_000
    """UTF-8 bytes of text to learn from: an equal part from each corpus, of local files from all over them. It takes 20
    to 90 bytes of memory for each of them."""

    def __post_init__(self) -> None:
        if self.vocab < len(_SPECIALS) + _BYTES:
            raise RecipeError(
                f"a vocabulary of {self.vocab} ids is too small for {' and '.join(_SPECIALS)} and the 256 bytes",
                where="BPE(vocab=...)",
                hint=f"give at least {len(_SPECIALS) + _BYTES}",
            )
        if self.sample_bytes < 1:
            raise RecipeError(
                f"sample_bytes cannot be {self.sample_bytes}",
                where="BPE(sample_bytes=...)",
                hint="give some megabytes: merges settle after 10 to 100 of them",
            )

    @property
    def pre_tokenizer(self) -> str:
        """llama.cpp's name of the same pre-tokenizer; its converter knows tokenizers by a hash, and has to be told."""
        return "smollm" if self.digits else "gpt-2"

    @property
    def specials(self) -> Specials:
        """The tokens that end a document, begin a text and fill up rows."""
        return OURS

    def identity(self) -> Any:
        """Return what decides the tokenizer besides the texts, as a JSON value."""
        return to_plain(self) | {"specials": to_plain(OURS)}

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Learn the merges; the same texts give the same tokenizer.

        A word of more than `LONGEST_WORD` characters is learned from as several: a merge takes the square of its length
        in time.

        Raises:
            DataError: the texts hold too few different words for exactly `vocab` ids, or one of them is not text.
        """
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.pre_tokenizer = (
            pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
            if self.digits
            else byte_level
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab,
            special_tokens=[*_SPECIALS],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        cuts = cuts_of(tokenizer)
        assert cuts is not None
        pieces = (piece for text in _sample(texts, self.sample_bytes) for piece in _pieces(text, cuts))
        tokenizer.train_from_iterator(pieces, trainer)
        size = tokenizer.get_vocab_size()
        if size < self.vocab and not self.at_most:
            raise DataError(
                f"the sample fills {size:,} of {self.vocab:,} ids",
                where=f"the texts given to BPE(vocab={self.vocab}, sample_bytes={self.sample_bytes})",
                hint="keep the ids it fills (at_most=True), train on more text, raise sample_bytes, or lower vocab",
            )
        assert size <= self.vocab and tokenizer.token_to_id(END) == END_ID
        return tokenizer


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Hex SHA-256 of the tokenizer's JSON, the same before saving and after loading."""
    return hash_of(json.loads(tokenizer.to_str()))


def save_tokenizer(tokenizer: Tokenizer, folder: Path, specials: Specials = OURS) -> None:
    """Write the files that `transformers.AutoTokenizer.from_pretrained(folder)` loads without any code of ours."""

    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **specials.names(),
        "clean_up_tokenization_spaces": False,
        # Without it transformers before 5 adds token_type_ids, which no causal model takes.
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if has_chatml(tokenizer):
        config |= {"eos_token": MESSAGE_END, "chat_template": CHAT_TEMPLATE}
    write_text(folder / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", config)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer from its folder, or from its `tokenizer.json`.

    It neither cuts nor fills up texts, even where its file says so (`truncation`, `padding`): that is for whoever makes
    batches of them. One that could make gigabytes of a line, or cannot read every text, is refused.

    Raises:
        DataError: the file is missing or damaged, or exceeds a limit (see `check_bounds`).
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    hint = 'train it with "lilliput run RECIPE", or fetch it again; transformers makes it from a tokenizer.model'
    if not file.is_file():
        raise DataError("there is no tokenizer", where=str(file), hint=hint)
    with reading(str(file), hint, kind=DataError), native(str(file)):
        check_size(file, "tokenizer_bytes", DataError)
        text = file.read_text(encoding="utf-8")
        try:
            check_bounds(json.loads(text, object_pairs_hook=unique), str(file))
            with quiet():
                tokenizer = Tokenizer.from_str(text)
        except (LilliputError, RecursionError):
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise DataError(f"the tokenizer cannot be read ({error!s:.300})", where=str(file), hint=hint) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if not tokenizer.get_vocab_size():
            raise DataError("the tokenizer has no tokens", where=str(file), hint=hint)
        with quiet():
            ids = tokenizer.encode(_PROBE).ids
            tokenizer.decode(ids, skip_special_tokens=False)
        if strange := [identity for identity in ids if tokenizer.id_to_token(identity) is None]:
            raise DataError(f"it writes the id {strange[0]}, which no token has", where=str(file), hint=hint)
    return tokenizer


def _sample(texts: Iterable[str], limit: int) -> Iterator[str]:
    read = 0
    for number, text in enumerate(texts):
        try:
            read += len(text.encode())
        except UnicodeEncodeError as error:
            raise DataError(
                f"the text has an unpaired surrogate at character {error.start}",
                where=f"text {number} of the tokenizer's sample",
                hint="drop it with a filter, or repair it",
            ) from error
        yield text
        if read >= limit:
            return


def _pieces(text: str, cuts: Cuts) -> Iterator[str]:
    """A text in pieces, which hold the words that it does, but for those that are too long."""
    for start, end, is_long in cuts.pieces(text, LONGEST_WORD):
        for word in (cuts.words_of(text[start:end]) if is_long else None) or (text[start:end],):
            yield from (word[index : index + LONGEST_WORD] for index in range(0, len(word), LONGEST_WORD))
