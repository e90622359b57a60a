"""Facts about the tokenizer of a run: what a token stands for on held-out texts, and which ids training never sees."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.data.chat_rows import PackedChats
from lilliput.data.encoded_documents import count_documents, encoded_documents
from lilliput.data.shards import Shards
from lilliput.publish.pretrained import fetch
from lilliput.publish.releases import folder_named
from lilliput.report.tokenizer_page import Fertility, TokenizerFacts
from lilliput.run.run_data import RunData
from lilliput.tokenizer.bpe import TOKENIZER_FILE, load_tokenizer
from lilliput.tokenizer.specials import literal, vocabulary_size

SAMPLE = 2_000_000
"""Bytes of the held-out text of a corpus that are encoded, about."""
KINDS = {
    "prose": "The river had risen in the night, and nobody in the village remembered when it had last been so high.",
    "code": "def mean(values: list[float]) -> float:\n    if not values:\n        return 0.0\n"
    "    return sum(values) / len(values)\n",
    "digits": "In 2024, 1,234,567 of 98765432 were 3.14159 or more: 0, 7, 10, 42, 365, 1000.",
    "white space": "a\n\n\n    b\n        c\n\t\td    e\n",
    "other scripts": "Привет, мир. 你好,世界。 नमस्ते दुनिया। Grüße aus Köln.",
}
CUT = {"digits": "1234567 + 89", "white space": "if x:\n        y", "a rare word": "antidisestablishmentarianism"}
LONGEST, UNUSED = 24, 60
"""Tokens that are listed."""


def tokenizer_facts(data: RunData, beside: Sequence[str]) -> TokenizerFacts:
    """Measure the tokenizer of a run.

    Args:
        data: of the run.
        beside: other tokenizers: folders of tokenizers, models or runs, and names on the hub.

    Raises:
        DataError: token files or a tokenizer are missing or damaged, or the hub is out of reach.
    """
    own = data.tokenizer(len(data.recipe.timeline))
    tokenizers = {"this run": literal(own)} | {name: literal(_named(name)) for name in beside}
    texts = {name: list(_sample(data, name)) for name in data.corpora}
    occurrences = np.zeros(vocabulary_size(own), dtype=np.int64)
    for name in data.corpora:
        found = count_documents(data.tokens(name), "train").occurrences
        occurrences[: len(found)] += found
    tokens = [(own.decode([identity], skip_special_tokens=False), identity) for identity in own.get_vocab().values()]
    special = own.get_added_tokens_decoder()
    learned = sorted((text, identity) for text, identity in tokens if identity not in special)
    unused = [(text, identity) for text, identity in learned if not occurrences[identity]]
    unused_learned = [pair for pair in unused if len(own.id_to_token(pair[1]) or "") > 1]
    longest = sorted(learned, key=lambda pair: (-len(pair[0]), pair[0]))[:LONGEST]
    return TokenizerFacts(
        names=list(tokenizers),
        vocabularies=[vocabulary_size(tokenizer) for tokenizer in tokenizers.values()],
        corpora=[_fertility(name, some, tokenizers) for name, some in texts.items() if any(some)],
        kinds=[_fertility(name, [text], tokenizers) for name, text in KINDS.items()],
        pieces={name: _pieces(own, text) for name, text in CUT.items()},
        unused=len(unused),
        unused_bytes=len(unused) - len(unused_learned),
        unused_tokens=[text for text, _ in sorted(unused_learned, key=lambda pair: -len(pair[0]))[:UNUSED]],
        longest=[(text, int(occurrences[identity])) for text, identity in longest],
    )


def _named(name: str) -> Tokenizer:
    """The tokenizer of a folder, of a run, or of a model on the hub."""
    folder = folder_named(Path(name).expanduser())
    run = folder / "tokenizer"
    if folder.exists():
        return load_tokenizer(run if (run / TOKENIZER_FILE).is_file() else folder)
    if name.count("/") != 1:
        raise DataError(
            f"there is no folder {name!r}",
            where="--beside",
            hint="give a folder with a tokenizer.json, a run, or the name of a model on the hub, owner/name",
        )
    return load_tokenizer(fetch(name, None, (TOKENIZER_FILE,)))


def _sample(data: RunData, name: str) -> Iterator[str]:
    """The first held-out texts of a corpus; of one that holds nothing out, nothing."""
    size = 0
    for text in _heldout(data, name):
        yield text
        size += len(text.encode("utf-8", "surrogatepass"))
        if size >= SAMPLE:
            return


def _heldout(data: RunData, name: str) -> Iterator[str]:
    files = data.tokens(name)
    if not files.heldout_size:
        return
    if isinstance(files, Shards):
        yield from (text for _, text in files.heldout_texts())
    elif isinstance(files, PackedChats):
        yield from (message.content for _, messages in files.heldout_conversations() for message in messages)
    else:
        tokenizer = data.tokenizer(len(data.recipe.timeline))
        for some in encoded_documents(files, "heldout"):
            yield from tokenizer.decode_batch([one.tolist() for one in some], skip_special_tokens=True)


def _fertility(name: str, texts: Sequence[str], tokenizers: Mapping[str, Tokenizer]) -> Fertility:
    counts = []
    for tokenizer in tokenizers.values():
        encoded = iter(texts)
        count = 0
        while some := list(islice(encoded, 256)):
            count += sum(map(len, tokenizer.encode_batch_fast(some, add_special_tokens=False)))
        counts.append(count)
    return Fertility(name=name, bytes=sum(len(text.encode()) for text in texts), tokens=counts)


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return [tokenizer.decode([identity], skip_special_tokens=False) for identity in ids]
