"""Formats in which a release is published: the folder that transformers loads, and what is made of it, beside it."""

from collections.abc import Sequence

from lilliput.base.errors import RecipeError
from lilliput.publish.gguf.architectures import architecture_for
from lilliput.publish.hf_formats.format import HFFormat

FORMATS = ("hf", "gguf", "int8")
ONLY_HF = ("hf",)


def check_formats(formats: Sequence[str], layout: HFFormat, where: str) -> None:
    """Refuse formats of a release that do not exist, or that its layout cannot have.

    Args:
        formats: their names.
        layout: the architecture of the release.
        where: the release, for the error.

    Raises:
        RecipeError: one does not exist, or `hf` is not among them.
        ExportError: the layout cannot have one.
    """
    for name in formats:
        if name not in FORMATS:
            raise RecipeError(f"there is no format {name!r:.80}", where=where, hint=f"there are: {', '.join(FORMATS)}")
    if "hf" not in formats:
        raise RecipeError(
            f"a release cannot be {', '.join(formats) or 'nothing'} alone",
            where=where,
            hint="give hf too, as in --format hf,gguf: every other format is made of it and compared with it",
        )
    if "gguf" in formats:
        architecture_for(layout)
