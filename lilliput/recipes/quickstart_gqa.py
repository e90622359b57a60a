"""The quickstart with attention instead of the recurrence: published as Qwen3, which needs no code of ours."""

from dataclasses import replace

from lilliput.nn.gqa import GQA
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Release
from lilliput.recipes import quickstart

layout = Qwen3Format(context=512)


def as_qwen3(release: Release) -> Release:
    """The same release under a name and a layout of its own."""
    return replace(release, name=release.name.replace("quickstart", "quickstart-gqa"), layout=layout)


recipe = replace(
    quickstart.recipe,
    name="quickstart-gqa",
    about="A tiny attention model of Python documentation, trained from nothing on two cores in minutes.",
    model=replace(quickstart.recipe.model, mixer=GQA(heads=8, kv_heads=2, head_width=32, qk_norm=True)),
    timeline=tuple(as_qwen3(entry) if isinstance(entry, Release) else entry for entry in quickstart.recipe.timeline),
)
