"""The corpora of a timeline: where they come from, what the phases read of them, and how large they are.

Nobody is asked over a network and no corpus is read whole. What is encoded in the run folder is known, local texts are
estimated from their beginning, streams from their budgets; of the rest nothing is said.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lilliput.base.code_hash import definitions
from lilliput.base.errors import LilliputError, reading
from lilliput.base.ownership import BEGUN
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.data.corpora.arithmetic import Arithmetic
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.concatenated import Concatenated, ConcatenatedChats
from lilliput.data.corpora.documentation.installed import Installed
from lilliput.data.corpora.documentation.questions import DocumentationQuestions
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.corpora.hub import HubChats, HubText
from lilliput.data.corpora.hub_partitions import HubPartitions
from lilliput.data.corpora.pairs import HubPairs, PairFiles, ShuffledAnswers
from lilliput.data.corpora.stand_in import StandIn
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.formats import format_of
from lilliput.data.license_terms import license_names, without_licenses
from lilliput.data.partial_shards import partial_folders
from lilliput.data.resumable import fraction_read, iterate_from
from lilliput.recipe import Recipe

BYTES_PER_TOKEN = 4
"""Estimated bytes of text per token, before anything is encoded: English in tokenizers of a few thousand to a hundred
thousand ids.
"""
SAMPLE = {TextFiles: 4_000_000, Arithmetic: 50_000}
"""Bytes of text that a corpus is estimated from: enough to see past what decompression reads ahead, in a moment."""

UNREAD = "not known before `lilliput data` has encoded it"
"""Why nothing is known of a corpus that is neither a local text nor a stream with a budget."""


class _Size(NamedTuple):
    """Size of a corpus; None for what is not known."""

    tokens: int | None = None
    """Tokens that a pass over the training side reads."""
    text: int | None = None
    files: int | None = None
    """Bytes of the token files."""
    unknown: str = ""
    """Why nothing is known."""


def corpora(recipe: Recipe, read: Mapping[str, float], folder: Path | None) -> list[dict[str, Any]]:
    """The corpora that the timeline names, in the recipe's order.

    Args:
        recipe: whose.
        read: tokens that the phases read, by corpus.
        folder: the run folder; None if none.

    Returns:
        JSON values: `name`, `source`, `licenses`, `tokens_read`; `passes` over the training side, `text_bytes` and
        `token_file_bytes`, None where unknown; `estimated`, whether these three are; `there`, the bytes of token files
        that exist, closed ones of an encoding that was interrupted too; `unknown`, why the size is, empty where not.
    """
    named = {name for entry in recipe.timeline for name in entry.reads()}
    rows = []
    for name in (name for name in recipe.corpora if name in named):
        corpus: Any = recipe.corpora[name]
        encoded = _encoded(recipe, name, folder)
        size = encoded or _estimated(corpus, 2 if recipe.tokenizer.vocab <= 2**16 else 4)
        tokens = round(read.get(name, 0))
        rows.append(
            {
                "name": name,
                "source": source(corpus),
                "licenses": license_names(to_plain(corpus)),
                "tokens_read": tokens,
                "passes": tokens / size.tokens if size.tokens else None,
                "text_bytes": size.text,
                "token_file_bytes": size.files,
                "estimated": encoded is None,
                "there": size.files if encoded else _partial_bytes(name, folder),
                "unknown": size.unknown,
            }
        )
    return rows


def source(corpus: Any) -> str:
    """Return where a corpus comes from, in a few words."""
    match corpus:
        case HubText() | HubChats() | HubPairs():
            parts = [corpus.dataset, corpus.config, None if corpus.split == "train" else corpus.split]
            return ", ".join(part for part in parts if part)
        case HubPartitions():
            without = f" without {', '.join(corpus.left_out)}" if corpus.left_out else ""
            return f"{corpus.dataset}, {len(corpus.kept)} parts{without}"
        case TextFiles() | ChatFiles() | PairFiles():
            return ", ".join(corpus.paths)
        case Filtered():
            return f"{source(corpus.source)}, filtered"
        case ShuffledAnswers():
            return f"{source(corpus.source)}, with answers to other questions"
        case StandIn():
            return f"{source(corpus.source)}, in the place of {corpus.missing}"
        case Concatenated() | ConcatenatedChats():
            return "; ".join(map(source, corpus.sources))
        case Installed():
            count = len(corpus.distributions)
            return f"documentation of {count} packages{' and Python' if corpus.python else ''}"
        case DocumentationQuestions():
            return f"questions about the {source(corpus.source)}"
        case Arithmetic():
            return f"{corpus.count:,} generated documents"
        case Teacher():
            of = f"{corpus.stand_in}, in the place of {corpus.model}" if corpus.stand_in else corpus.model
            return f"replies of {of} to {source(corpus.prompts)}"
    return type(corpus).__name__


def _encoded(recipe: Recipe, name: str, folder: Path | None) -> _Size | None:
    """The size of token files that a run would take as they are; None if it would write them."""
    if folder is None:
        return None
    try:
        with reading(folder, "put what is damaged back from a copy"):
            return _as_recorded(recipe, name, RunFolder(folder))
    except LilliputError:  # the run will say so
        return None


def _as_recorded(recipe: Recipe, name: str, run: RunFolder) -> _Size | None:
    record, tokenizer = run.record(f"shards/{name}"), run.record("tokenizer")
    tokenizer_spec = to_plain(recipe.tokenizer)
    if not record.get("done") or not tokenizer.get("done"):
        return None
    recorded, corpus = record["from"], recipe.corpora[name]
    learned = tokenizer["from"]["tokenizer"]
    code = definitions(corpus)
    same = (
        without_licenses(recorded["corpus"]["spec"]) == without_licenses(to_plain(corpus))
        and recorded["corpus"].get("code", code) == code
    )
    same = same and recorded["split"] == to_plain(recipe.split)
    same = same and {key: learned.get(key) for key in tokenizer_spec} == tokenizer_spec
    if not same or _changed(corpus, recorded["corpus"]["content"]):
        return None
    sides = record["outputs"]["sides"]
    files = sum(file.stat().st_size for file in (run.path / "shards" / name).glob("*.bin"))
    format = format_of(corpus)
    size = _Size(format.tokens_per_pass(sides["train"], recorded.get("length", 0)), format.text_bytes(sides), files)
    return size if files else None


def _changed(corpus: Any, content: Any) -> bool:
    """Return whether local files are others than those that were encoded. Files that are away are taken for what they
    were.
    """
    if isinstance(corpus, Filtered):
        return _changed(corpus.source, content)
    try:
        is_local = isinstance(corpus, TextFiles | ChatFiles | PairFiles) or (
            isinstance(corpus, HubPartitions) and corpus.is_local
        )
        return is_local and corpus.identity() != content
    except LilliputError:
        return False


def _partial_bytes(name: str, folder: Path | None) -> int:
    if folder is None:
        return 0
    partial = [path for path in partial_folders(folder / "shards") if path.name.startswith(name + BEGUN)]
    return sum(file.stat().st_size for path in partial for file in path.glob("*.bin"))


def _estimated(corpus: Any, width: int) -> _Size:
    try:
        text = _text_bytes(corpus)
    except LilliputError as error:
        return _Size(unknown=f"not known: {error.what} ({error.where})")
    if text is None:
        return _Size(unknown=UNREAD)
    tokens = text // BYTES_PER_TOKEN
    return _Size(tokens, text, tokens * width)


def _text_bytes(corpus: Any) -> int | None:
    """UTF-8 bytes of text, roughly; None where only reading all of it tells.

    Raises:
        LilliputError: it cannot be read.
    """
    innermost = corpus
    while isinstance(innermost, Filtered | StandIn):
        innermost = innermost.source
    match innermost:
        case HubPartitions() if innermost.is_local:
            return _sampled(corpus, SAMPLE[TextFiles])
        case HubPartitions():
            return innermost.expected_bytes
        case HubText():
            return innermost.most_bytes
        case Concatenated():
            parts = [_text_bytes(one) for one in innermost.sources]
            return None if None in parts else sum(part for part in parts if part is not None)
        case TextFiles() | Arithmetic():
            return _sampled(corpus, SAMPLE[type(innermost)])
    return None


def _sampled(corpus: Any, enough: int) -> int | None:
    """From the first documents, and how much of the corpus they are."""
    size = 0
    for item, mark in iterate_from(corpus):
        size += 0 if isinstance(item, str) else len(item.text.encode("utf-8", "surrogatepass"))
        if size >= enough:
            share = fraction_read(corpus)(mark)
            return round(size / share) if share else None
    return size
