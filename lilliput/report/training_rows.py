"""Training rows in the terminal: borders of documents, sources, and what is read without being a target."""

from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from lilliput.base.terminal import visible
from lilliput.data.batch import RowSource
from lilliput.data.row_text import RowDocument

LEGEND = "⟦brackets⟧, dim in a terminal: tokens that are read and are no targets."
_BORDER = "── "


def row_lines(
    number: int,
    source: RowSource | None,
    documents: Sequence[RowDocument],
    *,
    are_pairs: bool,
    ids: Mapping[int, str] | None = None,
) -> Iterator[Text]:
    """Yield a row in lines.

    Args:
        number: of the row in its phase, from 0.
        source: origin; None where the reader does not tell it.
        documents: of the row, in order.
        are_pairs: whether documents are the chosen and the rejected answers of pairs, in turn.
        ids: of the documents of its corpus, by number, as far as they are known.
    """
    tokens, targets = sum(one.tokens for one in documents), sum(one.targets for one in documents)
    yield Text.assemble(
        (f"row {number:,}", "bold"), f"  {_origin(source)}{tokens:,} tokens, {targets:,} of them targets"
    )
    numbers = source.documents if source else ()
    for place, document in enumerate(documents):
        is_filler = place < len(numbers) and numbers[place] < 0
        if is_filler or not document.stretches:
            yield Text(f"{_BORDER}{document.tokens:,} tokens that fill the row", style="dim")
            continue
        if are_pairs:
            name = f"pair {place // 2 + 1}, {('chosen', 'rejected')[place % 2]}"
        else:
            name = f"document {numbers[place]:,}" if place < len(numbers) else f"document {place + 1} of the row"
            name += f", {ids[numbers[place]]}" if ids and place < len(numbers) and numbers[place] in ids else ""
        continued = "" if document.begins else ", continued"
        yield Text(f"{_BORDER}{name}{continued}", style="cyan")
        body = Text()
        for stretch in document.stretches:
            shown = visible(stretch.text)
            body.append(shown) if stretch.is_target else body.append(f"⟦{shown}⟧", style="dim")
        yield body
    yield Text()


def _origin(source: RowSource | None) -> str:
    if source is None:
        return ""
    row = "" if source.row is None else f", packed row {source.row:,}"
    return f"{source.corpus}, pass {source.epoch + 1}{row}; "
