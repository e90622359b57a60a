"""The recipe file and the machine file, as a person would have written them."""

import math
from collections.abc import Mapping

from lilliput.data.corpora.hub import HubText
from lilliput.recipe import Recipe, Release
from lilliput.start.purposes import Purpose
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, StepPlan

HELD_OUT = 1e6
"""Tokens of a hub's corpora that are held out: some thousand documents."""
MOST_HELD_OUT = 0.05


def recipe_text(
    purpose: Purpose,
    name: str,
    *,
    sources: Mapping[str, tuple[str, ...]],
    phases: Mapping[str, Phase],
    time: str,
) -> str:
    """The Python file of a recipe that derives from that of the purpose.

    Args:
        purpose: whose recipe.
        name: of the new one.
        sources: paths by the name of a corpus.
        phases: of the new one, by name; they differ from the old ones in how long they are.
        time: that its training may take, in words.
    """
    base = purpose.base()
    module = purpose.recipe.replace("-", "_")
    streams = any(isinstance(corpus, HubText) for corpus in base.corpora.values())
    whole = f'{module}.recipe.until("{purpose.compared}")' if purpose.mixers_of else f"{module}.recipe"
    names = [_variable(base, entry) for entry in base.timeline]
    lines = [f'"""{name}: {purpose.recipe} for {time} of training, as `lilliput start` measured this machine.', ""]
    lines += [
        f"`lilliput recipe show {purpose.recipe}` prints the recipe that this one derives from; change what you like."
    ]
    lines += ['"""', "", "from dataclasses import replace", ""]
    lines += _imports(base, phases, sources, module, streams=streams)
    if purpose.mixers_of:
        lines += [f"base = {whole}  # what comes after this phase is not compared"]
        whole = "base"
    lines += [f"({names[0]},) = {whole}.timeline" if len(names) == 1 else f"{', '.join(names)} = {whole}.timeline"]
    if streams:
        lines += _streamed_tokens(phases)
    lines += ["", "recipe = replace(", f"    {whole},", f'    name="{name}",']
    if streams:
        lines += _streams(base, phases, module)
    elif sources:
        lines += _sources(base, sources, module)
    lines += ["    timeline=("]
    for entry, variable in zip(base.timeline, names, strict=True):
        match entry:
            case Phase():
                lines += _phase(entry, phases[entry.name], variable, time, streams=streams)
            case Release():
                lines += [f'        replace({variable}, name="{name}{_suffix(base, entry)}"),']
            case _:
                lines += [f"        {variable},"]
    return "\n".join([*lines, "    ),", ")", ""])


def machine_text(machine: Machine, says: str) -> str:
    """The Python file of a resolved machine; `says` is what it is."""
    lines = [
        f'"""Where the recipe beside it was measured, and its minutes hold: {says}."""',
        "",
        "from lilliput.train.machine import Machine",
        "",
        "machine = Machine(",
        f'    device="{machine.device}",',
        f'    precision="{machine.precision}",  # of matrix products; weights and optimizer state are fp32 always',
        f"    threads={machine.threads},  # of PyTorch on the processor; the weights depend on it to the last bit",
    ]
    if machine.rows_from_memory:
        lines += ['    rows="memory",  # of a micro-batch: as many as fit into memory, which training finds']
    return "\n".join([*lines, ")", ""])


def _imports(
    base: Recipe, phases: Mapping[str, Phase], sources: Mapping[str, tuple[str, ...]], module: str, *, streams: bool
) -> list[str]:
    old = {entry.name: entry for entry in base.timeline if isinstance(entry, Phase)}
    shares = streams or any(phases[name].measure_every != old[name].measure_every for name in phases)
    lines = [f"from lilliput.base.units import {'Share, ' if shares else ''}Tokens"]
    kinds = {type(base.corpora[name]) for name in sources}
    lines += sorted(f"from {kind.__module__} import {kind.__name__}" for kind in kinds)
    if streams:
        lines += ["from lilliput.data.split import Split"]
    return [*lines, f"from lilliput.recipes import {module}", ""]


def _variable(base: Recipe, entry: object) -> str:
    match entry:
        case Phase():
            return entry.name.replace("-", "_")
        case Release():
            return _suffix(base, entry).strip("-") or "release"
    return "growth"


def _suffix(base: Recipe, release: Release) -> str:
    """Return what a release is called beside its recipe: `-base`, or nothing."""
    return release.name.removeprefix(base.name) if release.name.startswith(base.name) else ""


def _sources(base: Recipe, sources: Mapping[str, tuple[str, ...]], module: str) -> list[str]:
    lines = ["    corpora={  # files, folders and patterns"]
    if set(base.corpora) - set(sources):
        lines += [f"        **{module}.recipe.corpora,"]
    for name, paths in sources.items():
        written = ", ".join(map(_literal, paths))
        kind = type(base.corpora[name]).__name__
        lines += [f'        "{name}": {kind}(paths=({written},)),']
    return [*lines, "    },"]


def _literal(text: str) -> str:
    """Return a value as a Python literal, in double quotes if that is the same."""
    return f'"{text}"' if repr(text) == f"'{text}'" and '"' not in text else repr(text)


def _streamed_tokens(phases: Mapping[str, Phase]) -> list[str]:
    (phase,) = phases.values()
    return ["", f"TOKENS = {_product(phase)}  # steps x rows x length = {int(phase.tokens):,}"]


def _streams(base: Recipe, phases: Mapping[str, Phase], module: str) -> list[str]:
    (phase,) = phases.values()
    share = min(MOST_HELD_OUT, max(base.split.share, HELD_OUT / int(phase.tokens)))
    digits = 10.0 ** -math.floor(math.log10(share))
    return [
        "    corpora={  # no more of each is streamed than will be read",
        f"        name: replace(text, tokens=Tokens(text.tokens.count * TOKENS / {module}.TOKENS))",
        f"        for name, text in {module}.recipe.corpora.items()",
        "    },",
        f"    split=Split(share={math.floor(share * digits) / digits:g}),  # never trained on",
    ]


def _phase(old: Phase, new: Phase, variable: str, time: str, *, streams: bool) -> list[str]:
    plan = StepPlan(new)
    if streams:
        lines = [f"            tokens=Tokens(TOKENS),  # more take longer than {time}"]
    else:
        product, count = _product(new), f"{int(new.tokens):,}"
        lines = [
            f"            tokens=Tokens({product}),  # steps x rows x length = {count}; more take longer than {time}"
        ]
    if new.batch_tokens != old.batch_tokens:
        because = f"{StepPlan(old).rows:,} rows would leave too few steps"
        lines += [f"            batch_tokens={plan.rows:_} * {new.length:_},  # rows x length; {because}"]
    if new.measure_every != old.measure_every:
        share = new.measure_every.fraction
        lines += [f"            measure_every=Share({share}),  # of the steps; measuring held-out text takes time, too"]
    if streams:
        lines += [
            "            schedule=replace(pretrain.schedule, warmup=Share(0.02)),  # a share fits any number of steps"
        ]
    return ["        replace(", f"            {variable},", *lines, "        ),"]


def _product(phase: Phase) -> str:
    plan = StepPlan(phase)
    return f"{plan.steps:_} * {plan.rows:_} * {phase.length:_}"
