"""The corpus of local files that hold conversations."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lilliput.base.errors import DataError
from lilliput.base.spec import LATER
from lilliput.data.conversations import Conversation
from lilliput.data.corpora.files import TextFiles
from lilliput.data.message_formats import COLUMNS, row_messages
from lilliput.data.readers.formats import holds_rows, suffix_of
from lilliput.data.readers.paths import nothing_in, readable_files
from lilliput.data.readers.row_files import rows


@dataclass(frozen=True, kw_only=True)
class ChatFiles:
    """Local files of rows, in any format of `TextFiles`, that hold messages in any form of `data/message_formats.py`.

    A README, a LICENSE and other files that tell of rows beside them are passed over in folders, as by `TextFiles`.
    """

    paths: tuple[str, ...]
    """Files, folders and glob patterns, as for `TextFiles`."""
    messages: str | None = None
    """Column that holds the list of messages, or the first one of a form; None: `messages`, or whichever form the rows
    have."""
    id: str = "id"
    """Column that names the row, and so its group; a row without it is "<file name>:<row number>"."""
    license: str | None = field(default=None, metadata=LATER)
    """Under which the texts come, by its hub name; None: not named, as cards then say."""

    def identity(self) -> list[Any]:
        """Size and time of change of every file."""
        return TextFiles(paths=self.paths).identity()

    def conversations(self) -> Iterator[Conversation]:
        """Yield the conversations in the order of the files and of their rows.

        Raises:
            DataError: a file is missing, damaged or of another kind, a row holds no such list, or none has a row.
        """
        empty = True
        columns = (*COLUMNS, self.id, *(() if self.messages is None else (self.messages,)))
        for found in readable_files(self.paths):
            if found.is_about:
                continue
            if not holds_rows(found.path):
                raise DataError(
                    f"a {suffix_of(found.path) or 'nameless'} file holds no conversations",
                    where=str(found.path),
                    hint="give .jsonl, .ndjson, .json, .csv, .tsv (plain or compressed) or .parquet files",
                )
            for record in rows(found.path, columns):
                messages = row_messages(record.values, self.messages, str(record), record.columns)
                name = record.id(self.id)
                empty = False
                yield Conversation(messages, name, name)
        if empty:
            raise nothing_in(self.paths)
