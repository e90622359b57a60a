"""What a pipeline command works on: a recipe and the folder of its run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import LilliputError


@dataclass(frozen=True, kw_only=True)
class Target:
    """A recipe, changed as the command line says, and its run folder."""

    recipe: Any
    folder: Path


def target(
    name: str,
    *,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    sources: Sequence[str] = (),
    shrunk: bool = False,
) -> Target:
    """What RECIPE|RUN and the options after it stand for.

    A run knows its recipe; options change it, which a run that has trained already will refuse by itself.

    Raises:
        LilliputError: a run folder came with --out, or an option has no value.
        RecipeError: a name, a field or a value does not exist.
    """
    from lilliput.base.spec import override_all
    from lilliput.shrink import shrink
    from lilliput.sources import with_sources

    run = Path(name)
    if (run / "recipe.json").is_file():
        if out is not None:
            raise LilliputError(
                f"{name} is a run and has its folder already",
                where="--out",
                hint="give the recipe by name to begin a run in another folder",
            )
        recipe = _recorded(run)
    else:
        recipe = _recipe(name)
    # Shrunk first, so that no option is undone by it.
    recipe = shrink(recipe) if shrunk else recipe
    recipe = override_all(recipe, [_pair(one, "--set", "seed=1") for one in overrides])
    given: dict[str, list[str]] = {}
    for one in sources:
        corpus, path = _pair(one, "--source", "fineweb-edu=texts/*.jsonl")
        given.setdefault(corpus, []).append(path)
    recipe = with_sources(recipe, {corpus: tuple(paths) for corpus, paths in given.items()})
    if (run / "recipe.json").is_file():
        return Target(recipe=recipe, folder=run)
    return Target(recipe=recipe, folder=out or Path("runs") / (f"{recipe.name}-shrunk" if shrunk else recipe.name))


def _recipe(name: str) -> Any:
    from lilliput.recipe import load_recipe

    if Path(name).is_dir():
        raise LilliputError(
            f"the folder {name} is no run, it has no recipe.json",
            where="the command line",
            hint="give the folder that `lilliput run` made, or a recipe by name (`lilliput recipe list`)",
        )
    return load_recipe(name)


def _recorded(run: Path) -> Any:
    from lilliput.base.files import read_json
    from lilliput.base.spec import from_plain
    from lilliput.recipe import Recipe

    try:
        plain = read_json(run / "recipe.json")
    except ValueError as error:
        raise LilliputError(
            f"the file is damaged ({error})",
            where=str(run / "recipe.json"),
            hint="give the recipe by name, with --out for this folder; it is written again",
        ) from error
    recipe = from_plain(plain, where=str(run / "recipe.json"))
    if not isinstance(recipe, Recipe):
        raise LilliputError(
            "the file holds no recipe",
            where=str(run / "recipe.json"),
            hint="give the recipe by name, with --out for this folder; it is written again",
        )
    return recipe


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise LilliputError(f"{text!r} sets nothing", where=option, hint=f"write e.g. {option} {example}")
    return name, value
