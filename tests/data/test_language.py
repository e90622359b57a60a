"""Languages are told where they can be, and only there."""

import pytest

from lilliput.base.errors import RecipeError
from lilliput.data.corpora.filters import FilterChain, InLanguage
from lilliput.data.documents import Document
from lilliput.data.language import is_in, language_of, languages

ENGLISH = "The dog ran home as fast as it could, and found the red ball there."
GERMAN = "Der Hund lief so schnell er konnte nach Hause und fand dort den roten Ball."
JAPANESE = "これは日本語の文章です。とても短いですが、それで十分です。"


def test_languages_come_by_their_share_and_rare_ones_are_not_named() -> None:
    assert languages([ENGLISH]) == ["en"] and languages([JAPANESE]) == ["ja"]
    assert languages([GERMAN, ENGLISH, GERMAN]) == ["de", "en"]
    assert languages([ENGLISH] * 30 + [GERMAN]) == ["en"]


def test_what_is_no_language_has_none() -> None:
    assert languages([]) == languages(["", "  "]) == languages(["12345 67890 " * 40]) == languages(["a b"]) == []


def test_a_text_is_in_a_language_as_far_as_can_be_told() -> None:
    assert language_of(ENGLISH) == "en" and language_of(GERMAN) == "de" and language_of("Yes.") is None
    assert is_in(ENGLISH, ("en",)) and not is_in(GERMAN, ("en",)) and is_in(GERMAN, ("en", "de"))
    assert is_in("42", ("en",)) and is_in("```python\nfor eins in zwei: der(hund)\n```", ("en",))
    assert not is_in(f"{GERMAN}\n```\n{ENGLISH}\n{ENGLISH}\n{ENGLISH}\n```", ("en",))


def test_a_corpus_is_filtered_by_language() -> None:
    filters = FilterChain((InLanguage(languages=("en",)),))
    texts = [ENGLISH, GERMAN, "12", JAPANESE]
    kept = filters.run(Document(text, str(number), str(number)) for number, text in enumerate(texts))
    assert [document.text for document in kept] == [ENGLISH, "12"]
    assert filters.counts == {"kept": 2, "language: another language": 2}
    with pytest.raises(RecipeError, match="no language"):
        InLanguage(languages=())
