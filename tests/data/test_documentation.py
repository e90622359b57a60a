"""The corpus an installation carries: extraction, markup, determinism, and the questions made of it."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from tiny_corpora import corpus_hash

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.spec import from_plain, to_plain
from lilliput.data.corpora.documentation.answers import about, parameters, summary
from lilliput.data.corpora.documentation.docstrings import WIDEST, Entry, entries_of
from lilliput.data.corpora.documentation.installed import TOPICS, Installed
from lilliput.data.corpora.documentation.markup import plain, plain_markdown
from lilliput.data.corpora.documentation.questions import REPEATS, DocumentationQuestions

SOURCE = '''
"""Tools to measure the weather of one place over a long time."""
raise RuntimeError("this module must never be imported")

if True:
    def mean(values, weights=None, *, axis: int = 0, **options) -> float:
        """Return the weighted mean of the values along one axis.

        Parameters
        ----------
        values : array
            Measurements in the order in which they were taken.
        axis : int, optional
            The axis along which the mean is taken, default: 0.

        Examples
        --------
        >>> mean([1, 2])
        1.5
        """
        def inner():
            """An inner function with its own docstring, long enough."""

class Station(object):
    """A station that records the temperature every hour of the day."""

    def __init__(self, name, height=2.0):
        pass

    @property
    def latest(self):
        """The latest measurement that the station has recorded."""

    async def read(self, hours: int = 24):
        """Read the measurements of the last hours from the station.

        Args:
            hours (int, optional): How many hours to look back from now.
        """

    class Clock:
        """The clock of the station, which is always in universal time."""

def short():
    """Too short."""
'''


def install(site: Path, name: str, files: dict[str, str], description: str = "", summary: str = "") -> None:
    """Write an installed distribution: its files, and the folder that pip leaves beside them."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: {summary}\n\n{description}"
    files = files | {f"{info}/METADATA": metadata}
    record = "".join(f"{path},,{len(text.encode())}\n" for path, text in files.items()) + f"{info}/RECORD,,\n"
    for path, text in (files | {f"{info}/RECORD": record}).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def module(text: str) -> str:
    return f'def work():\n    """{text}"""\n'


def sentence(number: int) -> str:
    return f"Describe how the {number}th of many different machines in the old hall is started and stopped every day."


def test_a_source_gives_headers_and_docstrings_in_order() -> None:
    entries = entries_of(SOURCE.encode(), "weather", "stations/_base.py")
    assert [(entry.kind, entry.title) for entry in entries] == [
        ("module", "weather.stations"),
        ("function", "weather.stations.mean(values, weights=None, *, axis=0, **options)"),
        ("function", "weather.stations.mean.inner()"),
        ("class", "weather.stations.Station(name, height=2.0)"),
        ("attribute", "weather.stations.Station.latest"),
        ("function", "weather.stations.Station.read(hours=24)"),
        ("class", "weather.stations.Station.Clock"),
    ]
    assert ">>>" not in entries[1].text and "Examples" not in entries[1].text
    assert entries[1].text.startswith(f"{entries[1].title}\nReturn the weighted mean")
    assert {(entry.package, entry.path) for entry in entries} == {("weather", "stations/_base.py")}


def test_module_names_drop_private_endings_only() -> None:
    source = b'"""A module docstring that is certainly long enough to keep."""'
    paths = {
        "__init__.py": "p",
        "a/__init__.py": "p.a",
        "a/_b.py": "p.a",
        "_a/b.py": "p._a.b",
        "p.py": "p",
        "q.py": "p.q",
    }
    assert {path: entries_of(source, "p", path)[0].name for path in paths} == paths


def test_long_headers_lose_arguments() -> None:
    entry = Entry("p", "p.py", "function", "p.f", ", ".join(f"argument_{number}=None" for number in range(30)), "")
    assert entry.title.endswith("=None, ...)") and WIDEST - 30 < len(entry.title) <= WIDEST
    assert Entry("p", "p.py", "function", "p.f", "x" * 200, "").title == "p.f(...)"


def test_odd_sources_are_parsed_without_warnings() -> None:
    docstring = '"""An invalid escape \\d in a docstring, of forty characters at least."""'
    assert len(entries_of(docstring.encode(), "p", "p.py")) == 1, "a SyntaxWarning is no reason to drop a file"
    latin = '# -*- coding: latin-1 -*-\n"""Caf\xe9s and other places where people meet to drink."""'.encode("latin-1")
    assert "Cafés" in entries_of(latin, "p", "p.py")[0].docstring
    with pytest.raises(SyntaxError):
        entries_of(b"print 'two'", "p", "p.py")


def test_markup_becomes_plain_english() -> None:
    assert (
        plain("See :class:`~a.b.C`, :func:`the sum <a.sum>`, ``x`` and `.Line`.")
        == "See `C`, `the sum`, `x` and `Line`."
    )
    assert plain("Use [`Model`] or **both** of `these <http://x.y>`_ [1]_.") == "Use `Model` or both of these."
    assert plain("A.\n\n.. versionadded:: 1.2\n   Old.\n\nB.") == "A.\n\nB."
    assert (
        plain("A.\n\n.. note::\n\n    Mind the gap,\n    please.\n\nB.") == "A.\n\nNote: Mind the gap,\nplease.\n\nB."
    )
    assert plain("A.\n\nExamples\n--------\n>>> f(x)\n3\n\nNotes\n-----\nB.") == "A.\n\nNotes\n-----\nB."
    assert plain("A.\n\n>>> f(x)\n3\n\nThe code::\n\n    y = 1") == "A.\n\nThe code:\n\n    y = 1"
    assert plain("A.\n\nNotes\n-----\n%(notes)s\n\nReferences\n----------\n.. [1] Me.") == "A."
    assert plain("x... and so on.. [sic]") == "x... and so on.. [sic]"
    markdown = "[![ci](a.svg)](b)\n# Title\n\nA [link](http://x.y) <b>bold</b>.\n\n```sh\npip\n```\n"
    markdown += "## Empty\n\n## More\n\nText."
    assert plain_markdown(markdown) == "# Title\n\nA link bold.\n\n## More\n\nText."


def test_documents_of_a_distribution(site: Path) -> None:
    files = {
        "weather_a/__init__.py": SOURCE,
        "weather_a/broken.py": "def broken(:\n",
        "weather_a/tests/test_it.py": module(sentence(1)),
        "weather_a/_vendor/other.py": module(sentence(2)),
        "weather_a/test_more.py": module(sentence(3)),
        "weather_small.py": module(f"{sentence(4)} {sentence(5)}"),
    }
    description = "# Weather\n\nMeasure the weather of the place where you live with little effort and great joy. " * 2
    install(site, "weather-a", files, description)
    corpus = Installed(distributions=("weather-a",), python=False, workers=1)
    documents = {document.id: document for document in corpus.documents()}
    assert set(documents) == {
        "installed/weather_a/__init__.py",
        "installed/weather_a/weather_a.dist-info",
        "installed/weather_small/weather_small.py",
    }
    assert {document.group for document in documents.values()} == {"weather_a"}  # one distribution, one group
    assert documents["installed/weather_a/weather_a.dist-info"].text.startswith("# Weather\n\nMeasure")
    assert "weather_a.Station(name, height=2.0)\nA station that" in documents["installed/weather_a/__init__.py"].text
    assert corpus.extraction().unreadable == 1
    assert "weather_a" not in sys.modules


def test_what_another_group_said_is_left_out(site: Path) -> None:
    shared = sentence(7)
    own = {name: f"{sentence(number)} {sentence(number + 1)}" for number, name in enumerate(("twin_a", "twin_b"), 20)}
    for name, text in own.items():
        install(
            site, name, {f"{name}.py": module(shared) + module(f"{text}\n\n    {sentence(9)}").replace("work", "rest")}
        )
    texts = [document.text for document in Installed(distributions=("twin_a", "twin_b"), python=False).documents()]
    assert len(texts) == 2
    assert sum(shared in text for text in texts) == 1 and sum(sentence(9) in text for text in texts) == 1


def test_documents_do_not_depend_on_workers_and_keep_the_budget(site: Path) -> None:
    for package in ("many_a", "many_b", "many_c"):
        start = len(package) * ord(package[-1]) * 100
        install(
            site,
            package,
            {
                f"{package}/part_{number}.py": module(f"{sentence(start + number)} {sentence(-start - number)}")
                for number in range(40)
            },
        )
    names = ("many_a", "many_b", "many_c")
    one, three = (Installed(distributions=names, python=False, package_bytes=4000, workers=n) for n in (1, 3))
    documents = list(one.documents())
    assert corpus_hash(documents) == corpus_hash(three.documents())
    assert corpus_hash(one.documents()) == corpus_hash(documents), "the second time comes from memory"
    sizes = Counter()
    for document in documents:
        sizes[document.group] += len(document.text.encode())
    assert all(3500 < size <= 4000 for size in sizes.values()), sizes
    order = [document.group for document in documents]
    assert order != sorted(order), "shuffled"
    more = Installed(distributions=names, python=False, package_bytes=8000, workers=1)
    assert {document.id for document in documents} < {document.id for document in more.documents()}


def test_missing_and_silent_distributions_are_errors(site: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)'no-such-thing' is not installed.*pip install no-such-thing"):
        list(Installed(distributions=("no-such-thing",), python=False).documents())
    install(site, "silent-one", {"silent_one.py": "x = 1\n"})
    corpus = Installed(distributions=("silent-one",), python=False, workers=1)
    with pytest.raises(DataError, match="no documentation at all"):
        list(corpus.documents())
    with pytest.raises(DataError, match="no docstring answers"):
        list(DocumentationQuestions(source=corpus).conversations())
    with pytest.raises(RecipeError, match="workers is 0"):
        Installed(distributions=(), workers=0)
    with pytest.raises(RecipeError, match="per_package is 0"):
        DocumentationQuestions(source=corpus, per_package=0)


def test_python_itself() -> None:
    corpus = Installed(distributions=(), package_bytes=20_000)
    documents = list(corpus.documents())
    groups = {document.group for document in documents}
    assert {"json", "argparse", "asyncio", TOPICS} <= groups
    assert not groups & {"test", "idlelib", "lib2to3", "site_packages", "pydoc_data", "antigravity"}
    assert sum(len(document.text) for document in documents) > 700_000
    assert len({document.id for document in documents}) == len(documents)
    assert "antigravity" not in sys.modules and "pydoc_data.topics" not in sys.modules
    text = next(document.text for document in documents if document.id == "installed/json/decoder.py")
    assert "json.decoder.JSONDecoder.decode(s, _w=WHITESPACE.match)\nReturn the Python representation of" in text
    conversations = list(DocumentationQuestions(source=corpus, per_package=20).conversations())
    check_questions(conversations, 20)
    assert len(conversations) > 500


def check_questions(conversations: list, most: int) -> None:
    for conversation in conversations:
        assert [message.role for message in conversation.messages] == ["user", "assistant"]
        answer = conversation.messages[1].content
        subject = answer.split("`")[1]
        assert answer.startswith(f"`{subject}`") and subject in conversation.messages[0].content
        assert 30 <= len(answer) <= 450 and answer.endswith("."), answer
        assert not any(mark in answer for mark in ("``", ":class:", ">>>", "\n", "  "))
    questions = Counter(conversation.messages[0].content for conversation in conversations)
    answers = Counter(conversation.messages[1].content for conversation in conversations)
    assert max(questions.values()) == 1 and max(answers.values()) <= REPEATS
    owners = {(conversation.messages[1].content, conversation.group) for conversation in conversations}
    assert len(owners) == len(answers), "an answer belongs to one group"
    assert max(Counter(conversation.group for conversation in conversations).values()) <= most


def test_questions_of_a_distribution(site: Path) -> None:
    private = '\n\ndef _hidden():\n    """Return a value that nobody outside of this module may see."""\n'
    install(site, "weather-q", {"weather_q.py": SOURCE + private}, summary="Measure the weather of any place on earth")
    questions = DocumentationQuestions(source=Installed(distributions=("weather-q",), python=False, workers=1))
    known = {item.id: [message.content for message in item.messages] for item in questions.conversations()}
    assert {name: answer for name, (_, answer) in known.items()} == {
        f"questions/weather_q/{name}": f"`{answer}"
        for name, answer in {
            "weather-q": "weather-q` measures the weather of any place on earth.",
            "weather_q.mean": "weather_q.mean` returns the weighted mean of the values along one axis.",
            "weather_q.mean/axis": "axis`: The axis along which the mean is taken.",
            "weather_q.mean.inner": "weather_q.mean.inner`: An inner function with its own docstring, long enough.",
            "weather_q.Station": "weather_q.Station`: A station that records the temperature every hour of the day.",
            "weather_q.Station.latest": "weather_q.Station.latest`: The latest measurement that the station "
            "has recorded.",
            "weather_q.Station.read": "weather_q.Station.read` reads the measurements of the last hours "
            "from the station.",
            "weather_q.Station.read/hours": "hours`: How many hours to look back from now.",
            "weather_q.Station.Clock": "weather_q.Station.Clock`: The clock of the station, which is always in "
            "universal time.",
        }.items()
    }
    assert "`weather_q.mean`" in known["questions/weather_q/weather_q.mean/axis"][0]
    assert "`axis`" in known["questions/weather_q/weather_q.mean/axis"][0]
    few = list(DocumentationQuestions(source=questions.source, per_package=4).conversations())
    assert [item.id for item in few] == [item.id for item in questions.conversations()][:4]
    assert from_plain(to_plain(questions)) == questions


def test_summaries_are_whole_sentences() -> None:
    assert (
        summary("A tool that\nfinds things, e.g. Keys in a box.\n\nMore.")
        == "A tool that finds things, e.g. Keys in a box."
    )
    assert summary("Find the smallest of them. Ties go to the first one.") is not None
    for bad in (
        "Short.",
        "See the other function for a description.",
        "Use x = 1 to get all of the values.",
        "Given (a tuple of many things.",
    ):
        assert summary(bad) is None, bad
    assert summary("Compute all of the values as follows:") is None
    assert about("f", "Try the first key and return its value.") == "`f` tries the first key and returns its value."
    assert about("f", "List of all the names.") == "`f`: List of all the names."
    assert about("f", "Searches for a name.") == "`f` searches for a name."


NUMPY = """Do.

Parameters
----------
left, right : int
    Both of the sides of it.
size : int
    The number of rows to be read.

    More.

Returns
-------
value : int
    The value that was found in the table."""

GOOGLE = """Do.

Args:
    size (`int`, *optional*, defaults to 3): the number of rows
        to be read.
    other: Whether the other rows are read as well. Slow.

Returns:
    value: The value that was found in the table."""

REST = """Do.

:param int size: The number of rows
    to be read.
:type size: int
:returns: The value that was found in the table."""


def test_parameters_in_three_styles() -> None:
    size = ("size", "The number of rows to be read.")
    assert list(parameters(NUMPY)) == [size]
    assert list(parameters(GOOGLE)) == [size, ("other", "Whether the other rows are read as well.")]
    assert list(parameters(REST)) == [size]
