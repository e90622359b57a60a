"""The code that scores a model folder: Lilliput's own forward pass wherever that is the model's."""

from pathlib import Path
from typing import Literal, get_args

from lilliput.base.errors import LilliputError, RecipeError
from lilliput.evals.native_model import Native
from lilliput.publish.load import load
from lilliput.publish.remote_code import foreign_code
from lilliput.run.native import native
from lilliput.run.trained import Trained

Choice = Literal["auto", "lilliput", "transformers"]
"""One of the two, or Lilliput's where it can load the folder and the folder brings no code of its own."""


def model_to_score(found: Path | Trained, code: str = "auto") -> Path | Native:
    """Return what `lilliput.evals.harness.evaluate` takes: a native model, or a folder for transformers.

    Args:
        found: a model folder, or what a run has trained.
        code: one of `Choice`.

    Raises:
        RecipeError: there is no such choice, or transformers is to load a model that is in no folder.
        LilliputError: with `lilliput`, whatever keeps the folder from being loaded.
    """
    if code not in get_args(Choice):
        raise RecipeError(
            f"there is no model code {code!r}", where="--model-code", hint=f"one of {', '.join(get_args(Choice))}"
        )
    if isinstance(found, Trained):
        if code == "transformers":
            raise RecipeError(
                f"{found.folder} has released nothing that transformers could load",
                where="--model-code transformers",
                hint="leave it out, or publish the run",
            )
        return native(found.published, found.folder)
    if code == "transformers" or (code == "auto" and foreign_code(found)):
        return found
    try:
        loaded = load(found)
    except LilliputError:
        # Another architecture, or a folder that its own gates refuse: the evaluation says why.
        if code == "lilliput":
            raise
        return found
    return native(loaded, found)
