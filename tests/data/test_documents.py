"""Documents: the hash of a corpus."""

import hashlib

from lilliput.data.documents import Document, TextHash, corpus_hash


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
