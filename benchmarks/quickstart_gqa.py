"""The quickstart with attention in place of its recurrence: as deep and as wide, to compare what serving takes."""

from dataclasses import replace

from lilliput.nn.gqa import GQA
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Release
from lilliput.recipes import quickstart

layout = Qwen3Format(context=2_048)
recipe = replace(
    quickstart.recipe,
    name="quickstart-gqa",
    model=replace(quickstart.recipe.model, mixer=GQA(heads=4, kv_heads=2, head_width=64, qk_norm=True)),
    timeline=tuple(
        replace(entry, name=entry.name.replace("quickstart", "quickstart-gqa"), layout=layout)
        if isinstance(entry, Release)
        else entry
        for entry in quickstart.recipe.timeline
    ),
)
