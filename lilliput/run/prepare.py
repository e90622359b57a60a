"""From raw text to token files: the tokenizer and the shards of a recipe, as parts of its run."""

from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from tokenizers import Tokenizer

from lilliput.base.background import run_in_background
from lilliput.base.code_hash import definitions
from lilliput.base.errors import DataError, RunError, reading
from lilliput.base.ownership import check_ours
from lilliput.base.run_folder import IsIntact, RunFolder, differences
from lilliput.base.spec import to_plain
from lilliput.data.corpora.concatenated import at_revision
from lilliput.data.corpora.stand_in import StandIn
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.corpus_format import TokenFiles, WriteSettings
from lilliput.data.formats import format_of
from lilliput.data.license_terms import without_licenses
from lilliput.data.lost_conversations import lost as lost_of
from lilliput.data.replies.teacher_replies import TeacherReplies
from lilliput.data.shards import SHARD_TOKENS
from lilliput.data.small_corpora import Extent, Way, extent, sides
from lilliput.data.token_files import INDEX, SIDES
from lilliput.data.tokenization_report import COUNTED, lines_of
from lilliput.data.tokenizer_sample import sampled
from lilliput.data.validation import check_sides
from lilliput.growth.growth import Lineage
from lilliput.recipe import Recipe
from lilliput.run.asking import Asking
from lilliput.run.decontamination import Decontamination, SearchedSets
from lilliput.run.replies import RunReplies
from lilliput.run.verified_token_files import TokenFileOpener
from lilliput.tokenizer.bpe import BPE, load_tokenizer, save_tokenizer, tokenizer_hash
from lilliput.tokenizer.specials import vocabulary_size
from lilliput.train.phase import Phase


class Preparation:
    """Makes a recipe's tokenizer and token files on demand, each once.

    Args:
        run: the open run.
        recipe: what to make.
        console: where progress is shown.
        shard_tokens: of a token file.
        asking: means to ask teachers.
        processes: that encode a large corpus.
    """

    def __init__(
        self,
        run: RunFolder,
        recipe: Recipe,
        console: Console,
        shard_tokens: int = SHARD_TOKENS,
        asking: Asking = Asking(),
        processes: int = 1,
    ):
        self._run, self._recipe, self._console = run, recipe, console
        self._shard_tokens, self._processes = shard_tokens, processes
        self._token_files: dict[str, TokenFiles] = {}
        self._replies = RunReplies(run, recipe, asking, console)
        self._decontamination = Decontamination(run, recipe, asking.questions, console)
        self._opener = TokenFileOpener(run, console, self._say)
        self._changed: set[str] = set()
        """Corpora whose text is not what the run has read, and that has been said of."""
        self._extents: dict[str, tuple[Any, dict[str, int]]] = {}

    def forget(self) -> None:
        """Hash every token file again, as if none had been."""
        self._opener.forget()

    def everything(self, until: str | None = None) -> Tokenizer:
        """Make the tokenizer, and the token files of all corpora that the timeline reads, before anything trains.

        A damaged text is found now, not after a week of training.

        Args:
            until: the last phase that token files are made for; None for all. They are those of the whole recipe, so
                that the run can be continued later.

        Returns:
            the tokenizer that the timeline begins with.
        """
        part = self._recipe.until(until).without_releases() if until else self._recipe
        self.replies(until, trained=False)
        tokenizer = first = self.tokenizer()
        for entry in part.timeline:
            for name in entry.reads():
                self.tokens(name, tokenizer)
            tokenizer = entry.retokenize(tokenizer)
        return first

    def replies(self, until: str | None = None, *, trained: bool = True) -> dict[str, TeacherReplies]:
        """Ask teachers for the replies that the timeline reads and the run lacks; return them by corpus.

        Args:
            until: see `everything`.
            trained: include those that weights were trained on, which need no replies any more.
        """
        part = self._recipe.until(until).without_releases() if until else self._recipe
        read = dict.fromkeys(name for entry in part.timeline for name in entry.reads())
        asked = [name for name in read if isinstance(self._recipe.corpora[name], Teacher)]
        left_out = self._trained() if asked and not trained else set()
        return {name: self._replies.readable(name) for name in asked if name not in left_out}

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, learned from the training side of the recipe's tokenizer corpora."""
        recipe = self._recipe
        before = self._run.record("tokenizer").get("from", {}).get("corpora", {})
        if not isinstance(before, dict):
            raise _damaged("the tokenizer's corpora", self._run)
        trained = before if self._trained() else {}
        inputs = {
            "tokenizer": recipe.tokenizer.identity(),
            "split": to_plain(recipe.split),
            "corpora": {
                name: self._identity(name, before.get(name), trained=name in trained)
                for name in recipe.tokenizer_corpora
            },
        }
        self._refuse_to_replace("tokenizer", inputs, _is_tokenizer, trained)

        def build(folder: Path) -> dict[str, Any]:
            with self._console.status("tokenizer: reading the corpora"):
                tokenizer = run_in_background(recipe.tokenizer.train, self._training_texts(inputs["corpora"]))
            save_tokenizer(tokenizer, folder, recipe.tokenizer.specials)
            return {"sha256": tokenizer_hash(tokenizer), "vocab": vocabulary_size(tokenizer)}

        outputs = self._run.cached("tokenizer", inputs, build, _is_tokenizer)
        self._say(f"tokenizer: {outputs['vocab']:,} tokens, {outputs['sha256'][:12]}")
        return load_tokenizer(self._run.path / "tokenizer")

    def tokens(self, name: str, tokenizer: Tokenizer) -> Any:
        """The token files of a corpus, as its format opens them, once.

        A tokenizer that grew encodes text as it did before, so what is open already stays right.
        """
        if name not in self._token_files:
            self._token_files[name] = self._tokens(name, tokenizer)
            self._token_files[name].tokenizer = tokenizer
        return self._token_files[name]

    def tokens_of(self, phase: Phase, lineage: Lineage) -> dict[str, Any]:
        """The token files that a phase reads, by corpus, with what its data needs of earlier computations."""
        files = {name: self.tokens(name, lineage.tokenizer) for name in phase.reads()}
        return phase.with_computed(files, lineage.computed)

    def _tokens(self, name: str, tokenizer: Tokenizer) -> TokenFiles:
        format = format_of(self._recipe.corpora[name])
        length = self._row_length(name) if format.packs_rows else 0
        key = tokenizer_hash(tokenizer)
        begun = self._run.record(f"shards/{name}").get("from", {})
        before = begun.get("corpus")
        trained = {name} & self._trained()
        identity = self._identity(name, before, trained=bool(trained))
        way = self._way(name, identity)
        inputs = {"corpus": identity, "tokenizer": key, "split": to_plain(self._recipe.split)}
        inputs |= {"length": length} if format.packs_rows else {}
        sets = self._decontamination.sets if format.is_searched else None
        searched = begun.get("evaluation_sets") if trained else sets and sets.sha256
        inputs |= {"evaluation_sets": searched} if searched else {}
        self._refuse_to_replace(f"shards/{name}", inputs, _has_index, trained)

        def build(folder: Path) -> dict[str, Any]:
            check_ours(self._run.path, f"shards/{name}")  # it is replaced once the new one is whole
            whole = self._corpus(name, identity)
            if searched:
                whole = self._searched(name, searched).without_items(whole)
            corpus, split = sides(whole, self._recipe.split, way)
            settings = WriteSettings(
                name=name,
                end=self._recipe.tokenizer.specials.end,
                length=length,
                shard_tokens=self._shard_tokens,
                inputs=inputs,
                processes=self._processes,
                console=self._console,
            )
            outputs = format.write(corpus, tokenizer, split, folder, settings) | {"unit": format.unit}
            if format.is_searched:
                outputs |= self._decontamination.outputs(self._replies.readable(name), sets if searched else None)
            return outputs if way == "groups" else outputs | {"held_out": way}

        outputs = self._run.cached(f"shards/{name}", inputs, build, _has_index)
        for line in lines_of(outputs, self._recipe.split):
            self._say(f"{name}: {line}")
        if isinstance(corpus := self._recipe.corpora[name], StandIn):
            self._say(f"{name}: read in the place of {corpus.missing}; --source {name}=PATH reads what you have")
        if not trained:  # which is too late to be asked
            if phases := self._readers(name):
                lost = max(getattr(phase.data, "lost", 1.0) for phase in phases)
                readers = [phase.name for phase in phases]
                format.validate(name, outputs["sides"], length=length, lost=lost, phases=readers)
            folder = self._run.path / "shards" / name
            check_sides(name, outputs["sides"], folder, self._corpus(name, identity), self._recipe.split, way)
        token_files = self._opener.open(name, key, format)
        if token_files.index["sha256"] != outputs["index_sha256"]:
            raise DataError(
                "the token files are not the ones this run made",
                where=str(token_files.folder),
                hint="restore them from a copy, or delete the folder to write them again",
            )
        return token_files

    def _searched(self, name: str, index: str) -> SearchedSets:
        """The evaluation sets by the hash of their index.

        Raises:
            RunError: the run has another index, or none.
        """
        sets = self._decontamination.sets
        if sets is None or sets.sha256 != index:
            raise RunError(
                f"the token files of {name} were made without the items of evaluation sets, which are others here",
                where=str(self._run.path),
                hint="give the folder of those sets with --eval-data",
            )
        return sets

    def _row_length(self, name: str) -> int:
        """Tokens of the longest rows that a phase takes from a corpus; of any phase, where only releases read it."""
        readers = self._readers(name) or self._recipe.phases.values()
        return max(phase.row_tokens(stage)[0] for phase in readers for stage in range(len(phase.stages)))

    def _readers(self, name: str) -> list[Phase]:
        """The phases that read a corpus."""
        return [phase for phase in self._recipe.phases.values() if name in phase.reads()]

    def _training_texts(self, identities: dict[str, Any]) -> Iterator[str]:
        tokenizer, names = self._recipe.tokenizer, self._recipe.tokenizer_corpora
        assert isinstance(tokenizer, BPE)
        size, empty = -(-tokenizer.sample_bytes // len(names)), True
        for name in names:
            way = self._way(name, identities[name])
            corpus, split = sides(self._corpus(name, identities[name]), self._recipe.split, way)
            for text in sampled(corpus, split, size):
                empty = empty and not text.strip()
                yield text
        if empty:
            raise DataError(
                "there is no text to learn a tokenizer from",
                where=f"the training side of {', '.join(self._recipe.tokenizer_corpora)}",
                hint="check the files, the filters and the held-out share",
            )

    def _trained(self) -> set[str]:
        """Names of the corpora that a phase was trained on, or has begun to be: their tokens are the run's for good.

        So are those of computations.
        """
        found = (self._run.path / "parts").glob("*.json")
        records = sorted(record for record in found if record.name.startswith(("phases.", "computed.")))
        phases = [record.stem.replace(".", "/", 1) for record in records]
        with reading(self._run.path / "parts", "put the records of phases back from a copy"):
            return {name for phase in phases for name in self._run.record(phase).get("from", {}).get("tokens", {})}

    def _refuse_to_replace(self, part: str, inputs: Any, is_intact: IsIntact, trained: Collection[str]) -> None:
        """Refuse to make again, from a text that is another one by now, what weights were trained on.

        Raises:
            RunError: the part is damaged or gone, and its text has changed.
        """
        changed = sorted(name for name in trained if name in self._changed)
        if changed and self._run.outputs(part, inputs, is_intact) is None:
            raise RunError(
                f"{part} is damaged and cannot be made again: the text of {', '.join(changed)} has changed since",
                where=str(self._run.path),
                hint=f"put the text, or {part}, back from a copy; or start another run with --out",
            )

    def _identity(self, name: str, before: Any, *, trained: bool) -> Any:
        """Return what decides the text of a corpus.

        A corpus that cannot be asked (files on another machine, a hub out of reach) is taken for what it was when a
        part was made of it `before`: a run goes on without it. One that weights were `trained` on stays what it was
        then, whatever has become of its files.

        Raises:
            RunError: weights were trained on another corpus of that name.
        """
        corpus = self._recipe.corpora[name]
        spec = to_plain(corpus)
        if before is not None and not (isinstance(before, dict) and {"spec", "content"} <= before.keys()):
            raise _damaged(name, self._run)
        is_same_spec = bool(before) and without_licenses(before["spec"]) == without_licenses(spec)
        if trained and before and not is_same_spec:
            changed = "; ".join(differences({name: before["spec"]}, {name: spec})[:4])
            raise RunError(
                f"the run was trained on another corpus: {changed}",
                where=str(self._run.path),
                hint="leave the change out: the run has its own token files; or start another run with --out",
            )
        if before and trained and isinstance(corpus, Teacher):
            return before  # its replies are in the token files, and are not asked for again
        code = definitions(corpus)
        is_same = before and is_same_spec and before.get("code", code) == code
        if is_same and _follows_a_branch(spec):
            return before  # a run stays with the commit that it began with: a new one is no reason to read it all again
        try:
            content = self._replies.readable(name).identity()
        except DataError as error:
            if not before:
                raise DataError(error.what, where=f"the corpus {name!r}: {error.where}", hint=error.hint) from error
            self._say(f"{name}: the corpus is out of reach, what was made of it is taken as it is ({error.what})")
            return before | {"spec": spec}
        if before and content != before["content"] and name not in self._changed:
            self._changed.add(name)
            kept = "the run goes on with what it was trained on" if trained else "it is read again"
            self._say(f"{name}: the text has changed since the run read it, {kept}")
        is_known = before and is_same and "extent" in before and before["content"] == content
        if before and (trained or is_known):
            return before
        identity = {"spec": spec, "content": content, "extent": self._extent(name, content)}
        return identity | ({"code": code} if code else {})

    def _extent(self, name: str, content: Any) -> dict[str, int]:
        """Return the extent of a corpus, which is measured once."""
        known = self._extents.get(name)
        if known is None or known[0] != content:
            with self._console.status(f"{name}: looking how much there is"):
                known = content, asdict(extent(at_revision(self._replies.readable(name), content)))
            self._extents[name] = known
        return known[1]

    def _way(self, name: str, identity: dict[str, Any]) -> Way:
        """Return how a corpus is held out; what was read before there was another way stays as it is."""
        if "extent" not in identity:
            return "groups"
        with reading(self._run.path / "parts", "put it back from a copy", f"the record of {name} is damaged"):
            return Extent(**identity["extent"]).way(
                self._recipe.split, can_cut=format_of(self._recipe.corpora[name]).can_cut
            )

    def _corpus(self, name: str, identity: dict[str, Any]) -> Any:
        """A corpus as it was when it had that identity."""
        return at_revision(self._replies.readable(name), identity["content"])

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _damaged(what: str, run: RunFolder) -> RunError:
    return RunError(
        f"the record of the text read for {what} is damaged",
        where=str(run.path / "parts"),
        hint="put it back from a copy, or start another run with --out",
    )


def _is_tokenizer(folder: Path, outputs: Any) -> bool:
    if not isinstance(outputs["vocab"], int):
        raise TypeError("`vocab` is not a whole number")
    try:
        return tokenizer_hash(load_tokenizer(folder)) == outputs["sha256"]
    except DataError:
        return False


def _follows_a_branch(spec: Any) -> bool:
    """Return whether a corpus, or one within it, is on the hub under a name whose commit may change."""
    parts = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    return (isinstance(spec, dict) and spec.get("revision", "") is None) or any(map(_follows_a_branch, parts))


def _has_index(folder: Path, outputs: Any) -> bool:
    both = [outputs["sides"][side] for side in SIDES]
    counts = [side[key] for side in both for key in COUNTED if key in side] + [*outputs.get("dropped", {}).values()]
    counts += [count for side in both for count in lost_of(side).values()]
    if not all(isinstance(count, int) for count in counts) or outputs.get("held_out", "ends") not in get_args(Way):
        raise TypeError("`sides`, `dropped` or `held_out` is malformed")
    if not all(isinstance(outputs[name], str) for name in ("text_sha256", "index_sha256")):
        raise TypeError("a hash is not a text")
    return (folder / INDEX).is_file()
