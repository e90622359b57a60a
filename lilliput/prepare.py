"""From raw text to token files: the tokenizer and the shards of a recipe, as parts of its run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.rundir import RunFolder
from lilliput.base.spec import to_plain
from lilliput.data.chats import ChatRows, write_chats
from lilliput.data.conversations import ChatCorpus, Conversation
from lilliput.data.documents import Corpus, Document, TextHash
from lilliput.data.shards import INDEX, Shards, write_shards
from lilliput.recipe import Recipe, Release
from lilliput.tokenizer.bpe import load_tokenizer, save_tokenizer, tokenizer_hash
from lilliput.tokenizer.specials import vocabulary_size
from lilliput.train.phase import Phase


class Preparation:
    """Makes a recipe's tokenizer and token files on demand, each once."""

    def __init__(self, run: RunFolder, recipe: Recipe, console: Console):
        self._run, self._recipe, self._console = run, recipe, console
        self._opened: dict[str, Shards | ChatRows] = {}

    def everything(self) -> Tokenizer:
        """The tokenizer, and the token files of all corpora that the timeline reads; returns the tokenizer."""
        tokenizer = first = self.tokenizer()
        for entry in self._recipe.timeline:
            if isinstance(entry, Phase | Release):
                for name in _reads(entry):
                    self.tokens(name, tokenizer)
            else:
                tokenizer = entry.retokenize(tokenizer)
        return first

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, learned from the training side of the recipe's tokenizer corpora."""
        recipe = self._recipe
        before = self._run.record("tokenizer").get("from", {}).get("corpora", {})
        inputs = {
            "tokenizer": recipe.tokenizer.identity(),
            "split": to_plain(recipe.split),
            "corpora": {name: self._identity(name, before.get(name)) for name in recipe.tokenizer_corpora},
        }

        def make(folder: Path) -> dict[str, Any]:
            with self._console.status("tokenizer: reading the corpora"):
                tokenizer = recipe.tokenizer.train(self._training_texts())
            save_tokenizer(tokenizer, folder, recipe.tokenizer.specials)
            return {"sha256": tokenizer_hash(tokenizer), "vocab": vocabulary_size(tokenizer)}

        made = self._run.part("tokenizer", inputs, make, _is_tokenizer)
        self._say(f"tokenizer: {made['vocab']:,} tokens, {made['sha256'][:12]}")
        return load_tokenizer(self._run.path / "tokenizer")

    def tokens(self, name: str, tokenizer: Tokenizer) -> Any:
        """The token files of a corpus, `Shards` or, for conversations, `ChatRows`; opened once.

        A tokenizer that grew encodes text as it did before, so what is open already stays right.
        """
        if name not in self._opened:
            self._opened[name] = self._tokens(name, tokenizer)
        return self._opened[name]

    def _tokens(self, name: str, tokenizer: Tokenizer) -> Shards | ChatRows:
        corpus: Any = self._recipe.corpora[name]
        chat = hasattr(corpus, "conversations")
        length = self._row_length(name) if chat else 0
        key, end = tokenizer_hash(tokenizer), self._recipe.tokenizer.specials.end
        before = self._run.record(f"shards/{name}").get("from", {}).get("corpus")
        inputs = {"corpus": self._identity(name, before), "tokenizer": key, "split": to_plain(self._recipe.split)}

        def make(folder: Path) -> dict[str, Any]:
            hashing: Any = _HashingChats(corpus) if chat else _Hashing(corpus)
            with self._console.status(f"{name}: encoding") as status:
                if chat:
                    index = write_chats(hashing, tokenizer, self._recipe.split, folder, length, end)
                else:
                    index = write_shards(
                        hashing,
                        tokenizer,
                        self._recipe.split,
                        folder,
                        progress=lambda done: status.update(f"{name}: {done:,} documents encoded"),
                        end=end,
                    )
            return {"text_sha256": hashing.texts.hex(), "index_sha256": index["sha256"], "sides": index["sides"]}

        made = self._run.part(f"shards/{name}", inputs | ({"length": length} if chat else {}), make, _has_index)
        sides = made["sides"]
        parts = [
            f"{side} " + ", ".join(f"{sides[side][key]:,} {key}" for key in _SHOWN if key in sides[side])
            for side in ("train", "heldout")
        ]
        self._say(f"{name}: {'; '.join(parts)}; text {made['text_sha256'][:12]}")
        folder = self._run.path / "shards" / name
        opened = ChatRows(folder, key) if chat else Shards(folder, key)
        if opened.index["sha256"] != made["index_sha256"]:
            raise DataError(
                "the token files are not those that this run made",
                where=str(folder),
                hint="put its own back, or delete the folder: they are then written again",
            )
        return opened

    def _row_length(self, name: str) -> int:
        """Tokens of the longest rows that a phase takes from a corpus; of any phase, where only releases read it."""
        phases = [entry for entry in self._recipe.timeline if isinstance(entry, Phase)]
        readers = [phase for phase in phases if name in phase.data.corpora] or phases
        return max(stage.objective.row_length(phase.length) for phase in readers for stage in phase.stages)

    def _training_texts(self) -> Iterator[str]:
        empty = True
        for name in self._recipe.tokenizer_corpora:
            corpus: Any = self._recipe.corpora[name]
            for document in corpus.documents():
                if not self._recipe.split.is_heldout(document.group):
                    empty = empty and not document.text.strip()
                    yield document.text
        if empty:
            raise DataError(
                "there is no text to learn a tokenizer from",
                where=f"the training side of {', '.join(self._recipe.tokenizer_corpora)}",
                hint="check the files, the filters and the share that is held out",
            )

    def _identity(self, name: str, before: Any) -> Any:
        """What decides the text of a corpus.

        A corpus that cannot be asked (files on another machine, a hub out of reach) is taken for what it was when a
        part was made of it `before`: a run goes on without it.
        """
        corpus = self._recipe.corpora[name]
        spec = to_plain(corpus)
        if before and before["spec"] == spec and _follows_a_branch(spec):
            return before  # a run stays with the commit that it began with: a new one is no reason to read it all again
        try:
            content = corpus.identity()
        except DataError as error:
            if not before:
                raise DataError(error.what, where=f"the corpus {name!r}: {error.where}", hint=error.hint) from error
            self._say(f"{name}: the corpus is out of reach, what was made of it is taken as it is ({error.what})")
            content = before["content"]
        return {"spec": spec, "content": content}

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _reads(entry: Phase | Release) -> tuple[str, ...]:
    if isinstance(entry, Phase):
        return entry.data.corpora
    return (entry.heldout, entry.chat) if entry.chat else (entry.heldout,)


def _is_tokenizer(folder: Path, outputs: Any) -> bool:
    try:
        return tokenizer_hash(load_tokenizer(folder)) == outputs["sha256"]
    except DataError:
        return False


def _follows_a_branch(spec: Any) -> bool:
    """Whether a corpus, or one within it, is on the hub under a name whose commit may change."""
    parts = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    return (isinstance(spec, dict) and spec.get("revision", "") is None) or any(map(_follows_a_branch, parts))


def _has_index(folder: Path, outputs: Any) -> bool:
    return (folder / INDEX).is_file()


_SHOWN = ("bytes", "documents", "conversations", "rows", "tokens")


class _Hashing:
    """A corpus that hashes its documents as they go by."""

    def __init__(self, corpus: Corpus):
        self._corpus, self.texts = corpus, TextHash()

    def identity(self) -> Any:
        return self._corpus.identity()

    def documents(self) -> Iterator[Document]:
        for document in self._corpus.documents():
            self.texts.add(document.id, document.text)
            yield document


class _HashingChats:
    """A chat corpus that hashes its conversations as they go by."""

    def __init__(self, corpus: ChatCorpus):
        self._corpus, self.texts = corpus, TextHash()

    def identity(self) -> Any:
        return self._corpus.identity()

    def conversations(self) -> Iterator[Conversation]:
        for conversation in self._corpus.conversations():
            for message in conversation.messages:
                self.texts.add(message.role, message.content)
            yield conversation
