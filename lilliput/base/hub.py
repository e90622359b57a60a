"""Explains failures of the Hugging Face hub in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Kind = Literal["dataset", "model"]
_reads_only: ContextVar[bool] = ContextVar("reads_only", default=False)


@contextmanager
def reading_only() -> Iterator[None]:
    """Ask no network inside: what is only looked at must not tell anybody of it. Caches on this machine are read."""
    token = _reads_only.set(True)
    try:
        yield
    finally:
        _reads_only.reset(token)


def may_ask_hub() -> bool:
    """Return whether the network may be asked: not while something is only read."""
    return not _reads_only.get()


def hub_trouble(error: BaseException, kind: Kind, name: str) -> tuple[str, str] | None:
    """Return what is wrong and what to do about it; None for an error that the hub has no part in.

    Libraries wrap each other's errors, so those that led to this one are looked at too, the deepest first.
    """
    chain = list(_chain(error))
    for one in reversed(chain):
        if (trouble := _trouble(one, kind, name)) is not None:
            return trouble
    return None


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed a moment later."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    for one in _chain(error):
        if isinstance(one, OfflineModeIsEnabled):
            return False
        if isinstance(one, HfHubHTTPError):
            return one.response is not None and (one.response.status_code == 429 or one.response.status_code >= 500)
    return any(isinstance(one, ConnectionError | TimeoutError | HTTPError) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    met: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in met:
        met.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _trouble(error: BaseException, kind: Kind, name: str) -> tuple[str, str] | None:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    match error:
        case GatedRepoError():
            return f"the {kind} {name!r} is gated", f"accept its terms at {page}, then log in with `hf auth login`"
        case RepositoryNotFoundError():
            return (
                f"the hub has no {kind} {name!r}, or it is private",
                "check the name; for a private one log in with `hf auth login`",
            )
        case RevisionNotFoundError():
            return f"the {kind} {name!r} has no such revision", f"name a branch, tag or commit of {page}/tree/main"
        case HFValidationError():
            return f"{name!r} is neither a folder nor a name on the hub", 'names on the hub are like "owner/name"'
        case OfflineModeIsEnabled():
            return (
                f"the {kind} {name!r} is not on this machine and the network is switched off",
                "unset HF_HUB_OFFLINE and HF_DATASETS_OFFLINE",
            )
        case HfHubHTTPError():
            return f"the hub refuses the {kind} {name!r}: {str(error).splitlines()[0]}", "try again later"
        case LocalEntryNotFoundError() | ConnectionError() | TimeoutError() | HTTPError():
            return f"the hub cannot be reached for the {kind} {name!r}", "check the network and try again"
    return None
