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
    """A path whose `~` is a home: shells leave that of `--out=~/x` as it is."""
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
        help="A published model folder; or a run: its last release, or its trained weights where there is none.",
    ),
]
RunOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="RUN",
        help="The run folder of a RECIPE, which a run needs whose recipe file defines parts of its own.",
        callback=expanded,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="The run folder, runs/<recipe> by default; an existing run is continued.",
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
    typer.Option("--source", metavar="NAME=PATH", help="Read a corpus of the recipe from local files instead."),
]
ShrinkOption = Annotated[bool, typer.Option("--shrink", help="The same recipe at toy size: a rehearsal in a minute.")]
MoreOption = Annotated[
    list[str],
    typer.Option(
        "--more-tokens",
        metavar="[PHASE=]TOKENS",
        help="Resume the last phase, or one by name, before its decay and train so many tokens more.",
    ),
]
MachineOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="A machine by name (here, cpu, one-gpu, mac, two-cpus, a100-40gb, gb10, strix-halo) or Python file.",
        autocompletion=_machines,
    ),
]
SinkOption = Annotated[
    list[str],
    typer.Option("--sink", metavar="NAME", help="Show the numbers of training to tensorboard, trackio or wandb too."),
]
ChangeOption = Annotated[
    bool,
    typer.Option("--allow-change", help="Go on on another machine or with other versions, and note it in the run."),
]
TrustOption = Annotated[
    bool,
    typer.Option("--trust-code", help="Let the Python files that the run keeps of its recipe, RUN/code, run."),
]
ItemsOption = Annotated[
    Path | None,
    typer.Option(
        "--eval-data",
        metavar="FOLDER",
        help="Local files of the evaluation sets; the hub by default.",
        callback=expanded,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto for the best there is.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
