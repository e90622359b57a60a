"""Documents: the hash of a corpus, and the licenses that it names."""

import hashlib

from tiny_corpora import corpus_hash

from lilliput.base.spec import to_plain
from lilliput.data.corpora.concatenated import Concatenated
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Exact, Filtered
from lilliput.data.corpora.hub import HubText
from lilliput.data.documents import Document, TextHash, licenses


def test_corpus_hash_depends_on_ids_texts_order_and_their_borders() -> None:
    one, two = Document("ab", "1", "g"), Document("c", "2", "g")
    base = corpus_hash([one, two])
    assert base == corpus_hash(iter([one, two])) == corpus_hash([Document("ab", "1", "other"), two])
    others = ([two, one], [one], [Document("a", "1", "g"), two], [Document("b", "1a", "g"), two], [one, two, two])
    assert len({base, *map(corpus_hash, others)}) == 6
    parts = b"".join(len(part).to_bytes(8, "little") + part for part in (b"1", b"ab"))
    assert corpus_hash([one]) == hashlib.sha256(hashlib.sha256().digest() + parts).hexdigest()
    texts = TextHash(corpus_hash([one]))
    texts.add(two.id, two.text)
    assert texts.hex() == base, "it goes on from what was hashed before"


def test_licenses_are_those_of_all_corpora_within_one_and_each_is_named_once() -> None:
    web, books, more = (
        HubText(dataset=f"a/{name}", license=license)
        for name, license in (("web", "odc-by"), ("books", "cc-by-4.0"), ("more", "odc-by"))
    )
    local = TextFiles(paths=("license",))
    corpus = Concatenated(sources=(Filtered(source=web, filters=(Exact(),)), local, books, more))
    assert licenses(to_plain(corpus)) == ["odc-by", "cc-by-4.0"] and licenses(to_plain(local)) == []
