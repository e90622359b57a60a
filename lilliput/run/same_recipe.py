"""A run keeps the recipe that its phases were trained from: another one is refused before anything is replaced."""

from lilliput.base.errors import RunError, reading
from lilliput.base.run_folder import RunFolder, differences
from lilliput.base.spec import to_plain
from lilliput.publish.lineage import phase_seed
from lilliput.recipe import Recipe
from lilliput.run.reproducibility import check_code_unchanged
from lilliput.run.steps import entry_code


def begun_parts(run_folder: RunFolder, recipe: Recipe) -> list[str]:
    """Return the parts of a recipe's timeline that the run has begun and never replaces unasked."""
    parts = [entry.part(index) for index, entry in enumerate(recipe.timeline)]
    return [part for part in parts if part is not None and run_folder.record(part).get("from")]


def refuse_other_recipe(run_folder: RunFolder, recipe: Recipe, allow_change: bool) -> None:
    """Refuse a recipe that would have trained a phase otherwise, or lacks one that training was resumed with.

    Args:
        run_folder: of the run.
        recipe: that it is to be continued with.
        allow_change: whether the code of own parts may differ.

    Raises:
        RunError: the recipe differs, or a record of the run is damaged.
    """
    with reading(run_folder.path / "parts", "put the records of the run back from a copy", "a record is damaged"):
        _refuse_other_phases(run_folder, recipe, allow_change)
        _refuse_shorter(run_folder, recipe)


def _refuse_shorter(run_folder: RunFolder, recipe: Recipe) -> None:
    """Refuse a recipe without a phase that training was resumed with: releases would be made of what came before."""
    try:
        before = (run_folder.read("recipe.json") or {}).get("timeline", [])
        entries = [entry if isinstance(entry, dict) else {} for entry in before]
    except (RunError, AttributeError, TypeError):  # damaged, and written again
        return
    names = {phase.name for phase in recipe.phases.values()}
    for index, entry in enumerate(entries):
        name = entry.get("name")
        part = f"phases/{index:02d}-{name}"
        if entry.get("resumes") and name not in names and run_folder.record(part).get("from"):
            raise RunError(
                f"the run was trained longer, and this recipe does not have its phase {name!r}",
                where=str(run_folder.path),
                hint=f"resume with the run's own recipe: lilliput run {run_folder.path}; begin another run with --out; "
                f"or give the phase up: lilliput clean {run_folder.path} --from {part}",
            )


def _refuse_other_phases(run_folder: RunFolder, recipe: Recipe, allow_change: bool) -> None:
    begun_phases = []
    for index, entry in enumerate(recipe.timeline):
        part = entry.part(index)
        if part is None or not run_folder.record(part).get("from"):
            continue
        begun_phases += [part] if index in recipe.phases else []
        run_folder.refuse_change(part, {entry.kind: to_plain(entry), "seed": phase_seed(recipe.seed, index)})
        check_code_unchanged(run_folder, part, entry_code(recipe, index), allow_change=allow_change)
    tokenizer = run_folder.record("tokenizer").get("from")
    if begun_phases and tokenizer:
        changed = differences(
            {key: tokenizer[key] for key in ("tokenizer", "split")},
            {"tokenizer": recipe.tokenizer.identity(), "split": to_plain(recipe.split)},
        )
        if changed:
            raise RunError(
                f"{begun_phases[0]} was trained on other tokens: {'; '.join(changed[:4])}",
                where=str(run_folder.path),
                hint=f"to continue, give the --set and other options that it was made with again, or name the run "
                f"folder alone, as in lilliput run {run_folder.path}; or begin another run with --out; or give it up: "
                f"lilliput clean {run_folder.path} --from {begun_phases[0]}",
            )
