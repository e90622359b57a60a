"""Verdicts of a judge behind an endpoint: each is kept in a file as it comes, and never paid twice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lilliput.base.errors import DataError, LilliputError
from lilliput.data.replies.asking import AskedEndpoint, ask_and_keep
from lilliput.data.replies.prompts import Prompt
from lilliput.data.replies.reply import reply_of
from lilliput.data.replies.reply_file import ReplyFile, read_replies
from lilliput.evals.pairwise import WinRate, comparisons, prompts_of, win_rate
from lilliput.run.asking import URL, Asking, endpoint_of
from lilliput.run.reply_progress import ReplyProgress

SETTINGS = {"temperature": 0.0, "max_tokens": 512}
"""One letter is asked for; there is room for a judge that thinks first."""
BEGINNING = b'{"key":'
"""Beginning of every row of the file."""


def judge_pairs(
    names: Sequence[str],
    judged: Sequence[Mapping[str, Any]],
    *,
    judge: str,
    path: Path,
    asking: Asking,
    console: Console,
) -> list[WinRate]:
    """Return how often the replies of each model are preferred to those of the first one.

    Args:
        names: of the models, two at least.
        judged: `Judged.plain` of each.
        judge: name of the model that is asked.
        path: of the file of verdicts, which need not be there; those that it has are not asked for again.
        asking: means to ask.
        console: where progress is shown.

    Raises:
        LilliputError: there is no endpoint, or the file is no file of this judge.
        DataError: the endpoint does not answer any more; repeated, the command asks for what is missing.
    """
    if len(names) < 2:
        raise LilliputError(
            f"one model, {names[0]}, has nothing to be compared with", where="--judge", hint="name a second model"
        )
    _check_file(path, judge)
    compared = [comparisons(each, judged[0]) for each in judged[1:]]
    _ask([prompt for pairs in compared for prompt in prompts_of(pairs, judge)], path, judge, asking, console)
    verdicts = {reply.key: reply.text for reply in read_replies(path)} if path.is_file() else {}
    return [win_rate(name, names[0], pairs, verdicts, judge) for name, pairs in zip(names[1:], compared, strict=True)]


def _ask(prompts: Sequence[Prompt], path: Path, judge: str, asking: Asking, console: Console) -> None:
    with ReplyFile(path) as file:
        every = {prompt.key: prompt for prompt in prompts}
        left = [prompt for key, prompt in every.items() if key not in file.keys]
        if not left:
            return
        endpoint = endpoint_of(judge, asking)
        if endpoint is None:
            raise LilliputError(
                f"the judge {judge!r} is not here: no endpoint is given",
                where="--judge",
                hint=f"give --endpoint http://HOST:PORT/v1 (or {URL}) where it answers",
            )
        asked = AskedEndpoint(endpoint=endpoint, settings=SETTINGS, concurrency=asking.concurrency)
        with ReplyProgress(console, "judge", left, judge, int(SETTINGS["max_tokens"]), asking.price) as progress:
            if len(left) < len(every):
                progress.say(f"{len(every) - len(left):,} verdicts are there, and are not asked for again")
            ask_and_keep(asked, left, file, progress.add)
    if missing := len(every.keys() - file.keys):
        raise DataError(f"{missing:,} pairs were not judged", where=str(path), hint="repeat the command")


def _check_file(path: Path, judge: str) -> None:
    """Refuse a file that is not ours, which would lose its lines, and one of another judge."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    judges: set[str] = set()
    for line in lines:
        try:
            judges.add(reply_of(line.decode()).group)
        except (ValueError, TypeError, KeyError):  # what a kill left of a row, or somebody else's
            if not line.startswith(BEGINNING):
                raise LilliputError(
                    "the file holds something else than verdicts", where=str(path), hint="give another: --verdicts FILE"
                ) from None
    if others := sorted(judges - {judge}):
        raise LilliputError(
            f"the verdicts are those of {', '.join(others)}, not of {judge}",
            where=str(path),
            hint="give another file: --verdicts FILE",
        )
