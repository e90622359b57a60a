"""Sources of corpora that are looked at before anything is planned."""

import json
from dataclasses import replace

import pytest
import tiny

from lilliput.base.errors import DataError
from lilliput.data.corpora.filters import Filtered
from lilliput.overrides import refuse_missing_files, replace_sources


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({"texts:body": ("talks.jsonl",)}, "there is no column 'body'"),
        ({"texts": ("talks.jsonl",)}, "there is no column 'text'"),
        ({"chats": ("talks.jsonl",)}, "no column holds messages"),
    ],
)
def test_a_column_that_is_not_there_is_refused_as_data_refuses_it(tmp_path, sources, says):
    (tmp_path / "talks.jsonl").write_text(json.dumps({"talk": "hello"}) + "\n")
    recipe = tiny.recipe(tmp_path / "data")
    refuse_missing_files(recipe, tmp_path / "run")
    here = {name: tuple(str(tmp_path / path) for path in paths) for name, paths in sources.items()}
    other = replace_sources(recipe, here)
    filtered = {
        name: corpus if name == "chats" else Filtered(source=corpus, filters=())
        for name, corpus in other.corpora.items()
    }
    for wrong in (other, replace(other, corpora=filtered)):
        with pytest.raises(DataError, match=says) as caught:
            refuse_missing_files(wrong, tmp_path / "run")
        assert caught.value.hint.endswith(": talk")
