"""The corpus that a Python installation carries: documentation of its distributions and of Python itself.

Nothing is imported and nothing is fetched: sources are parsed, package by package, until a package's share is full.
"""

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.limits import limit
from lilliput.data.corpora.documentation.docstrings import Entry, entries_of
from lilliput.data.corpora.documentation.markup import plain_markdown
from lilliput.data.corpora.filters import Clean, Exact, FilterChain, Length, MostlyText, SeenParagraphs
from lilliput.data.documents import Document
from lilliput.data.workers import spread

TOPICS = "python-topics"
"""Group of the documentation topics of Python's own help."""

FILTERS = (Clean(), Length(at_least=40, at_most=40_000), MostlyText(letters=0.75), Exact(), SeenParagraphs())
"""Filters that every docstring passes before it becomes part of a document."""
SHORTEST_DOCUMENT = 150
"""Files with fewer characters of documentation are left out."""


@dataclass(frozen=True)
class Extraction:
    """Documentation of an installation, before curation."""

    entries: tuple[Entry, ...]
    """File by file in the order of a hash of the document id; within a file in source order."""
    summaries: tuple[tuple[str, str, str], ...]
    """(distribution, group, one-line summary) in the order of the names asked for."""
    groups: Mapping[str, str]
    """Held-out group of each top-level package: one for all packages of a distribution, one a standard module."""
    unreadable: int
    """Source files that could not be read or parsed."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """Docstrings, descriptions and help topics of installed software, one document a source file.

    Every docstring follows a line with its dotted name and arguments. Packages of one distribution are one group of the
    held-out split, and what other docstrings said before is left out across all groups, so the split does not leak.
    """

    distributions: tuple[str, ...]
    """Names as pip knows them; each must be installed."""
    python: bool = True
    """Also the standard library and its help topics."""
    package_bytes: int = 400_000
    """At most this many UTF-8 bytes from one top-level package."""
    workers: int = 2
    """Processes that parse; the documents do not depend on it."""

    def __post_init__(self) -> None:
        for name in ("package_bytes", "workers"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"{name} is {getattr(self, name)}", where=f"Installed.{name}", hint="give a whole number above 0"
                )

    def extraction(self) -> Extraction:
        """The entries before curation; parsed once per process and settings.

        Raises:
            DataError: a distribution is not installed.
        """
        return _extraction(self.distributions, self.python, self.package_bytes, self.workers)

    def identity(self) -> dict[str, str]:
        """Versions of Python and of the distributions: with the spec, what the documents depend on."""
        versions = {name: _distribution(name).version for name in self.distributions}
        return versions | ({"python": platform.python_version()} if self.python else {})

    def documents(self) -> Iterator[Document]:
        """Yield the documents, shuffled by a hash of their ids.

        Raises:
            DataError: a distribution is not installed, or there is no documentation at all.
        """
        extraction = self.extraction()
        entries, groups = extraction.entries, extraction.groups
        parts = (Document(entry.docstring, str(index), entry.package) for index, entry in enumerate(entries))
        kept = ((entries[int(part.id)], part.text) for part in FilterChain(FILTERS).run(parts))
        empty = True
        for (package, path), texts in groupby(kept, key=lambda item: (item[0].package, item[0].path)):
            text = "\n\n\n".join(entry.headed(text) for entry, text in texts)
            if len(text) >= SHORTEST_DOCUMENT:
                empty = False
                yield Document(text, _id(package, path), groups[package])
        if empty:
            raise DataError(
                "there is no documentation at all",
                where=f"the installed distributions {', '.join(self.distributions) or '(none)'}",
                hint="name more distributions, or set python=True",
            )


@dataclass(slots=True)
class _Package:
    """One unit of parsing: everything of one top-level package."""

    name: str
    group: str
    texts: list[tuple[str, str]] = field(default_factory=list)
    """(path, plain text) of what needs no parsing."""
    sources: dict[str, str] = field(default_factory=dict)
    """Path relative to the package -> path on disk."""


@functools.lru_cache(maxsize=2)
def _extraction(distributions: tuple[str, ...], python: bool, package_bytes: int, workers: int) -> Extraction:
    packages: dict[str, _Package] = {}
    summaries = tuple(_add_distribution(packages, name) for name in distributions)
    if python:
        _add_python(packages)
    jobs = sorted(packages.values(), key=lambda package: (-len(package.sources), package.name))
    parse = functools.partial(_parse, budget=package_bytes, longest=limit("document_bytes"))
    results = list(map(parse, jobs)) if workers == 1 else spread(parse, jobs, workers)
    entries = [entry for found, _ in results for entry in found]
    entries.sort(key=lambda entry: _hash(_id(entry.package, entry.path)))
    groups = {package.name: package.group for package in packages.values()}
    return Extraction(tuple(entries), summaries, groups, sum(unreadable for _, unreadable in results))


def _parse(package: _Package, budget: int, longest: int) -> tuple[list[Entry], int]:
    """The entries of a package until `budget` bytes are full, and the number of unreadable sources met.

    Parsing takes a hundred times the bytes of a source; one above `longest` is not read.
    """
    entries = [Entry(package.name, path, "text", path, None, text) for path, text in package.texts]
    entries.sort(key=lambda entry: _hash(entry.path))
    kept: list[Entry] = []
    unreadable = 0
    for path in (None, *sorted(package.sources, key=_hash)):
        if path is not None:
            try:
                entries = entries_of(_source(Path(package.sources[path]), longest), package.name, path)
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                unreadable += 1
                continue
        for entry in entries:
            budget -= len(entry.text.encode("utf-8", "surrogatepass"))
            if budget < 0:
                return kept, unreadable
            kept.append(entry)
    return kept, unreadable


def _source(path: Path, longest: int) -> bytes:
    if not path.is_file() or path.stat().st_size > longest:
        raise ValueError("no file of code")
    return path.read_bytes()


def _add_distribution(packages: dict[str, _Package], name: str) -> tuple[str, str, str]:
    """Add the sources and the description of a distribution; return its name, group and summary."""
    distribution = _distribution(name)
    sizes: Counter[str] = Counter()
    sources: dict[str, dict[str, str]] = {}
    for file in distribution.files or ():
        top, path = file.parts[0].removesuffix(".py"), "/".join(file.parts[1:]) or file.name
        if file.suffix == ".py" and top.isidentifier() and not _is_skipped(path):
            sources.setdefault(top, {})[path] = str(file.locate())
            sizes[top] += file.size or 0
    normal = re.sub(r"[-_.]+", "_", name).lower()
    group = max(sizes, key=lambda top: (sizes[top], top)) if sizes else normal
    for top, files in sources.items():
        _package(packages, top, group).sources.update(files)
    about = distribution.metadata.json
    if description := plain_markdown(str(about.get("description", ""))):
        _package(packages, group, group).texts.append((f"{normal}.dist-info", description))
    return name, group, str(about.get("summary", ""))


def _distribution(name: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(
            f"the distribution {name!r} is not installed",
            where="Installed.distributions",
            hint=f"install it with `pip install {name}`, or leave it out",
        ) from error


def _add_python(packages: dict[str, _Package]) -> None:
    """Add the standard library and the help topics of this interpreter."""
    root = Path(sysconfig.get_path("stdlib"))
    for folder, below, names in os.walk(root):
        relative = Path(folder).relative_to(root).parts
        below[:] = sorted(name for name in below if not (_SKIPPED if relative else _SKIPPED_TOP).fullmatch(name))
        if relative and not relative[0].isidentifier():
            below.clear()
            continue
        for name in names:
            if name.endswith(".py") and not _is_skipped(name):
                top = relative[0] if relative else name.removesuffix(".py")
                _package(packages, top, top.lstrip("_")).sources["/".join((*relative[1:], name))] = os.path.join(
                    folder, name
                )
    topics = root / "pydoc_data" / "topics.py"
    if topics.is_file():
        texts = _package(packages, TOPICS, TOPICS).texts
        for node in ast.parse(topics.read_bytes()).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                found = ast.literal_eval(node.value)
                texts.extend((str(topic), _BOLD.sub(r"\1", str(text))) for topic, text in found.items())


_BOLD = re.compile(r"(?<![\w*])\*([^\s*][^*\n]*)\*(?![\w*])")


def _package(packages: dict[str, _Package], name: str, group: str) -> _Package:
    return packages.setdefault(name, _Package(name, group))


def _is_skipped(path: str) -> bool:
    *folders, name = path.split("/")
    return any(map(_SKIPPED.fullmatch, folders)) or name.startswith(("test_", "conftest.")) or "_test." in name


_SKIPPED = re.compile(
    r"_?tests?|testsuite|_?vendor(ed)?|third_?party|externs?|externals?|_bundled|__pycache__|(site|dist)-packages"
)
"""Folders of tests and of copies of other projects."""
_SKIPPED_TOP = re.compile(rf"{_SKIPPED.pattern}|idlelib|lib2to3|pydoc_data|turtledemo|lib-dynload")
"""Folders of the standard library without documentation worth reading."""


def _id(package: str, path: str) -> str:
    return f"installed/{package}/{path}"


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
