"""Token files of a run, opened after those that may have changed are hashed again.

What was hashed is noted in the run, so that files of hundreds of gigabytes are read once and not at every start.
"""

from array import array
from collections.abc import Callable
from time import perf_counter
from typing import Any

from rich.console import Console

from lilliput.base.errors import RunError, reading
from lilliput.base.hash_cache import HashCache
from lilliput.base.progress import Progress
from lilliput.base.run_folder import RunFolder
from lilliput.base.text_units import duration, size
from lilliput.data.corpus_format import CorpusFormat, TokenFiles

VERIFIED = "verified.json"
"""Record of the token files that were hashed, and of what tells that they have not changed since."""


class TokenFileOpener:
    """Opens the token files of one run.

    Args:
        run: that has them.
        console: where progress is shown.
        say: called with a line about a damaged record.
    """

    def __init__(self, run: RunFolder, console: Console, say: Callable[[str], None]):
        self._run, self._console = run, console
        self.known = self._verified_before(say)
        """Records of hashed files, by name; see `HashCache.plain`."""

    def open(self, name: str, key: str, format: CorpusFormat) -> TokenFiles:
        """Return the token files of a corpus, after those that have changed since they were hashed are hashed again."""
        folder = self._run.path / "shards" / name
        with Progress(self._console, name, "opening its token files") as shown:
            started = perf_counter()

            def report(done: int, total: int) -> None:
                speed = done / max(perf_counter() - started, 1e-9)
                left = f"{size(speed)}/s, {duration((total - done) / speed)} left"
                shown.show(f"{size(done)} of {size(total)} of token files compared with their hashes, {left}")

            verified = HashCache(self._run.path, self.known, report)
            try:
                return format.open(folder, key, verified)
            finally:
                self._remember(verified.plain())

    def forget(self) -> None:
        """Hash every token file again, as if none had been."""
        self._remember({})

    def _remember(self, known: dict[str, Any]) -> None:
        if known != self.known:
            self._run.write_with_checksum(VERIFIED, {"files": known})
            self.known = known

    def _verified_before(self, say: Callable[[str], None]) -> dict[str, Any]:
        try:
            with reading(self._run.path / VERIFIED, "remove it"):
                files = (self._run.read(VERIFIED) or {"files": {}})["files"]
                for known in files.values():
                    _check_stamp(**known)
                return files
        except RunError as error:
            say(f"{VERIFIED}: {error.what}; every token file is hashed again")
            return {}


def _check_stamp(stamp: list[int], sha256: str, blocks: str) -> None:
    """Raise whatever it is where a file is not noted as `HashCache` does it."""
    if not isinstance(stamp, list) or not isinstance(sha256, str):
        raise ValueError("a file record is malformed")
    array("I", bytes.fromhex(blocks))
