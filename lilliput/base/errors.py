"""Errors a person can act on: what is wrong with which value, where it came from, what to do."""


class LilliputError(Exception):
    """An error caused by input, never by a bug of ours (those are plain assertions).

    Args:
        what: what is wrong, naming the value.
        where: the file, recipe field or command the value came from.
        hint: the next thing to do.
    """

    def __init__(self, what: str, *, where: str, hint: str):
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  hint: {self.hint}"


class RecipeError(LilliputError):
    """A recipe, a machine or an override of one says something impossible."""


class DataError(LilliputError):
    """A corpus, a tokenizer or a shard cannot be read or does not fit the rest."""


class RunError(LilliputError):
    """A run folder is of another format, damaged, in use, or cannot be written."""


class InUseError(RunError):
    """Another process has the run open."""


class DivergenceError(RunError):
    """Training left the numbers that can be computed with; it would again."""


class ExportError(LilliputError):
    """A model cannot be published: its layout does not fit, or exported and native logits differ."""


class MachineError(LilliputError):
    """This machine cannot do what was asked of it."""
