"""Languages are told where they can be, and only there."""

from lilliput.data.language import languages

ENGLISH = "The dog ran home as fast as it could, and found the red ball there."
GERMAN = "Der Hund lief so schnell er konnte nach Hause und fand dort den roten Ball."
JAPANESE = "これは日本語の文章です。とても短いですが、それで十分です。"


def test_languages_come_by_their_share_and_rare_ones_are_not_named() -> None:
    assert languages([ENGLISH]) == ["en"] and languages([JAPANESE]) == ["ja"]
    assert languages([GERMAN, ENGLISH, GERMAN]) == ["de", "en"]
    assert languages([ENGLISH] * 30 + [GERMAN]) == ["en"]


def test_what_is_no_language_has_none() -> None:
    assert languages([]) == languages(["", "  "]) == languages(["12345 67890 " * 40]) == languages(["a b"]) == []
