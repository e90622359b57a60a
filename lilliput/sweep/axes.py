"""The variants of a sweep: all combinations of the swept values, made and checked before any of them trains.

A sweep may vary what training costs (layers, batches, lengths): refusing that would forbid the question, and calling it
equal would be a lie. So nothing is refused, the tokens and operations of every setting are counted, and the table and a
note say where they differ.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.base.field_overrides import override, override_all
from lilliput.base.spec_text import is_written, split, write
from lilliput.base.units import Share, Steps, Tokens
from lilliput.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class SweepAxis:
    """One swept field and its values, as texts in the order they were given."""

    path: str
    """Dotted, as `--set` has it."""
    values: tuple[str, ...]

    @property
    def of_parts(self) -> bool:
        """Return whether a value is written as a part by its name, `HGRN2(heads=4)`, or as a tuple, and not as a
        number.
        """
        return any(map(is_written, self.values))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One combination of swept values."""

    name: str
    """Such as `lr=0.003,mixer=GQA`; a safe name of a folder. Where nothing but the seed is varied, the recipe's."""
    values: Mapping[str, Any]
    """The value at each swept path: a number, a text or a boolean; a part as it is written."""

    @property
    def title(self) -> str:
        """The same for people, `lr=0.003, mixer=HGRN2(heads=4)`."""
        labels = _labels(list(self.values))
        return ", ".join(f"{labels[path]}={_spelled(value)}" for path, value in self.values.items()) or self.name


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One run of a sweep."""

    setting: Setting
    seed: int
    recipe: Recipe
    overrides: tuple[str, ...]
    """Overrides that make it from the varied recipe, in the form of `--set`."""

    @property
    def name(self) -> str:
        """Return the name of its run folder."""
        return f"{self.setting.name},seed={self.seed}" if self.setting.values else f"seed={self.seed}"


def read_over(text: str) -> SweepAxis:
    """Return what `--over path=a,b,c` says; commas in brackets belong to a value.

    Raises:
        RecipeError: it names no path, or a value is empty.
    """
    path, equals, values = text.partition("=")
    over = SweepAxis(path=path.strip(), values=tuple(value.strip() for value in split(values)))
    if not (over.path and equals and all(over.values)):
        raise RecipeError(
            f"{text!r} has no values", where="--over", hint="write e.g. --over timeline.pretrain.clip=0.5,1"
        )
    return over


def expanded(
    recipe: Recipe, overs: Sequence[SweepAxis], fixed: Iterable[str] = (), *, seeds: int = 1
) -> list[SweepAxis]:
    """The same overs, each path and value spelled in the one way that names of folders are made from.

    Args:
        recipe: what is varied.
        overs: as they were given; `timeline.0.tokens` and `timeline.pretrain.tokens` may be the same field.
        fixed: what `--set` was given, `path=value`.
        seeds: how many; several are something to vary, too.

    Raises:
        RecipeError: a path or a value does not fit the recipe, two are the same or one is alone, a path is not free, or
            nothing is varied.
    """
    if not overs and seeds == 1:
        raise RecipeError(
            "nothing is varied",
            where="--over",
            hint="vary a field, e.g. --over timeline.pretrain.clip=0.5,1, or the seed alone: --seeds 3",
        )
    taken = {"seed": "--seeds"}
    for text in fixed:
        with suppress(RecipeError):  # shrinking may have taken the field away
            path, _, value = text.partition("=")
            taken[_found(override(recipe, path, value), path, is_written(value))[0]] = f"--set {text}"
    found = []
    for over in overs:
        path, values = "", {}
        for text in over.values:
            path, value = _found(_changed(recipe, [(over.path, text)]), over.path, over.of_parts)
            if _spelled(value) in values:
                raise RecipeError(
                    f"{text!r} is the same value as {values[_spelled(value)]!r}",
                    where=f"--over {over.path}",
                    hint="give each value once; --seeds repeats each",
                )
            values[_spelled(value)] = text
        if len(over.values) == 1:
            text = f"{over.path}={over.values[0]}"
            raise RecipeError(
                f"{over.values[0]!r} is the only value of {over.path}, so there is nothing to compare it with",
                where=f"--over {text}",
                hint=f"give several with commas between them, or use --set {text}",
            )
        if path in taken:
            raise RecipeError(
                f"{over.path} is given twice",
                where=f"--over {over.path} and {taken[path]}",
                hint="leave one of them out",
            )
        taken[path] = f"--over {over.path}"
        found.append(SweepAxis(path=path, values=tuple(values)))
    return found


def variants(
    recipe: Recipe, overs: Sequence[SweepAxis], seeds: Sequence[int], *, in_full: bool = False
) -> list[Variant]:
    """All variants, seed after seed, so that early results compare all settings.

    Args:
        recipe: what is varied.
        overs: settled.
        seeds: of the variants.
        in_full: whether names spell parts out with their fields, as in sweeps of format 1.

    Raises:
        RecipeError: a combination of values does not fit.
    """
    labels = _labels([over.path for over in overs])
    made = []
    for texts in product(*(over.values for over in overs)):
        changed = _changed(recipe, [(over.path, text) for over, text in zip(overs, texts, strict=True)])
        values = {over.path: _found(changed, over.path, over.of_parts)[1] for over in overs}
        spelled = {path: _spelled(value).replace(", ", ",") for path, value in values.items()}
        short = spelled if in_full else {over.path: _brief(spelled[over.path], over) for over in overs}
        name = ",".join(f"{labels[path]}={value}" for path, value in short.items())
        overrides = tuple(f"{path}={_spelled(value)}" for path, value in values.items())
        made.append((Setting(name=_safe(name or recipe.name), values=values), changed, overrides))
    return [
        Variant(
            setting=one,
            seed=seed,
            recipe=replace(changed, seed=seed),
            overrides=overrides if seed == recipe.seed else (*overrides, f"seed={seed}"),
        )
        for seed in seeds
        for one, changed, overrides in made
    ]


def label(path: str, paths: Iterable[str]) -> str:
    """The short name of a swept path: its last words, as many as tell it from the others."""
    return _labels(list(paths))[path]


def _changed(recipe: Recipe, changes: list[tuple[str, str]]) -> Recipe:
    """The recipe with all changes of a setting, checked together."""
    try:
        return override_all(recipe, changes)
    except RecipeError as error:
        source = "" if error.where.startswith("--set") else f", {error.where}"
        overs = " ".join(f"--over {path}={text}" for path, text in changes)
        raise RecipeError(error.what, where=f"{overs}{source}", hint=error.hint) from error


def _found(recipe: Recipe, path: str, of_parts: bool) -> tuple[str, Any]:
    """The canonical path and the value of a field that `override` accepts: entries by name.

    Units are their number, and parts of one field that; where `of_parts`, a part is itself as it is written.
    """
    value: Any = recipe
    keys = path.split(".")
    found = []
    while keys or (is_dataclass(value) and not of_parts and not isinstance(value, Tokens | Steps | Share)):
        if isinstance(value, Tokens | Steps | Share):
            break
        if isinstance(value, tuple):
            names = [getattr(item, "name", str(place)) for place, item in enumerate(value)]
            key = keys.pop(0)
            place = names.index(key) if key in names else int(key)
            found.append(names[place])
            value = value[place]
        elif isinstance(value, Mapping):
            found.append(keys.pop(0))
            value = value[found[-1]]
        else:
            found.append(keys.pop(0) if keys else fields(value)[0].name)
            value = getattr(value, found[-1])
    if isinstance(value, Tokens | Steps | Share) and not of_parts:
        value = getattr(value, fields(value)[0].name)
    if is_dataclass(value) or isinstance(value, tuple):
        value = write(value)
    return ".".join(found), value


def _labels(paths: list[str]) -> dict[str, str]:
    labels = {}
    for path in paths:
        words = path.split(".")
        others = [other.split(".") for other in paths if other != path]
        told_apart = (n for n in range(1, len(words)) if all(other[-n:] != words[-n:] for other in others))
        count = next(told_apart, len(words))  # all of it where it is the end of another path
        labels[path] = ".".join(words[-count:])
    return labels


def _spelled(value: Any) -> str:
    """A value as text that `override` reads back as the same value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def _brief(spelled: str, over: SweepAxis) -> str:
    """A part by its type alone if it is the first of this type; values that come later leave that as it is."""
    kind = spelled.partition("(")[0]
    if not kind or not is_written(spelled):
        return spelled
    first = next(value for value in over.values if value.partition("(")[0] == kind)
    if first.replace(", ", ",") == spelled:
        return kind
    return f"{kind}-{hashlib.sha256(spelled.encode()).hexdigest()[:4]}"


def _safe(name: str) -> str:
    """A name of a folder: itself, or its safe letters and a hash of what they leave out."""
    kept = re.sub(r"[^A-Za-z0-9=,._+-]", "-", name)[:120]
    return name if kept == name else f"{kept.strip('-')},{hashlib.sha256(name.encode()).hexdigest()[:8]}"
