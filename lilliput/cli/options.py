"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer


def _recipes(incomplete: str) -> list[str]:
    from lilliput.recipe import names

    return [name for name in names("lilliput.recipes") if name.startswith(incomplete)]


def _machines(incomplete: str) -> list[str]:
    from lilliput.recipe import names

    return [name for name in names("lilliput.machines") if name.startswith(incomplete)]


def expanded(path: Path | None) -> Path | None:
    """Expand `~` in a path: shells leave that of `--out=~/x` as it is."""
    return path and path.expanduser()


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe by name (quickstart), or a Python file that defines one.",
        autocompletion=_recipes,
    ),
]
TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|RUN",
        help="A recipe by name (quickstart) or Python file, or the folder of a run, which knows its recipe.",
        autocompletion=_recipes,
    ),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL|RUN|RECIPE",
        help="A published model folder, or a run: its last release, or its trained weights if it has none.",
    ),
]
RunOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="RUN",
        help="The run folder of RECIPE. Needed if the run's recipe file defines parts of its own.",
        callback=expanded,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="The run folder, runs/<recipe> by default; an existing run is resumed.",
        callback=expanded,
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override one field of the recipe, e.g. seed=1, or a part by its name: 'model.mixer=HGRN2(heads=4)'.",
    ),
]
SourceOption = Annotated[
    list[str],
    typer.Option(
        "--source", metavar="NAME=PATH", help="Read a corpus from local files, not from what the recipe names."
    ),
]
ShrinkOption = Annotated[bool, typer.Option("--shrink", help="Shrink the recipe to toy size: a smoke run of a minute.")]
MoreOption = Annotated[
    list[str],
    typer.Option(
        "--more-tokens",
        metavar="[PHASE=]TOKENS",
        help="Resume the last phase (or PHASE) before its decay and train this many more tokens.",
    ),
]
MachineOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="A machine by name (here, cpu, one-gpu, mac, two-cpus, two-hosts, a100-40gb, gb10, strix-halo, "
        "two-strix-halo) or Python file.",
        autocompletion=_machines,
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="PHASE",
        help="The last phase to train. Later parts of the recipe, built or not, are left for another time.",
    ),
]
LoggerOption = Annotated[
    list[str],
    typer.Option("--logger", metavar="NAME", help="Also log training metrics to tensorboard, trackio or wandb."),
]
ChangeOption = Annotated[
    bool,
    typer.Option(
        "--allow-change", help="Resume on another machine or with other versions; the run records the change."
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option("--trust-code", help="Allow the recipe's Python files that the run keeps in RUN/code to run."),
]
ItemsOption = Annotated[
    Path | None,
    typer.Option(
        "--eval-data",
        metavar="FOLDER",
        help="A folder with the evaluation sets; the hub by default.",
        callback=expanded,
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where a teacher answers, e.g. http://localhost:8000/v1; OPENAI_BASE_URL by default. "
        "A key is read from OPENAI_API_KEY.",
    ),
]
JudgeEndpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where the judge answers, e.g. http://localhost:8000/v1; OPENAI_BASE_URL by default. "
        "A key is read from OPENAI_API_KEY.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto for the best available.")]
DtypeOption = Annotated[
    str,
    typer.Option(help="fp32, bf16, fp16 or int8: weights are read at each token, and 16 bits are half as many bytes."),
]
StateDtypeOption = Annotated[
    str | None,
    typer.Option(
        help="fp32, bf16 or fp16, that states are stored in: 16 bits are half the memory of a conversation. "
        "By default recurrent states are fp32; keys and values, too, or on a GPU as the weights."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
