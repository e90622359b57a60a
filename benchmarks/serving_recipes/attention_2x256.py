"""The quickstart with attention in place of its recurrence, to compare what serving takes: a recipe for `serving.py`.

Lilliput's own `quickstart-gqa` has a context of 512 tokens, and ten turns of a conversation are longer.
"""

from dataclasses import replace

from lilliput.nn.gqa import GQA
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Release
from lilliput.recipes import quickstart

layout = Qwen3Format(context=2_048)
recipe = replace(
    quickstart.recipe,
    name="attention-2x256",
    model=replace(quickstart.recipe.model, mixer=GQA(heads=4, kv_heads=2, head_width=64, qk_norm=True)),
    timeline=tuple(
        replace(entry, name=entry.name.replace("quickstart", "attention-2x256"), layout=layout)
        if isinstance(entry, Release)
        else entry
        for entry in quickstart.recipe.timeline
    ),
)
