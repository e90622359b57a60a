"""Purposes of a first training, each with its recipe of the package."""

from dataclasses import dataclass

from lilliput.base.spec_text import write
from lilliput.recipe import Recipe, load_recipe
from lilliput.train.phase import Phase

SEEDS = 2
"""Seeds of each side of an ablation: one alone does not show how much the seed changes a run."""


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """One of them."""

    name: str
    """Name for `--purpose`."""
    title: str
    recipe: str
    """The recipe that the new one derives from, by name."""
    sources: tuple[str, ...] = ()
    """Its corpora that are files of one's own."""
    minutes: int
    """Default minutes of training."""
    mixers_of: tuple[str, ...] = ()
    """Recipes whose mixers are compared; none where one model is trained."""
    remark: str = ""
    """A sentence that belongs to its plan."""

    def base(self) -> Recipe:
        """That recipe, as far as the purpose needs it."""
        recipe = load_recipe(self.recipe)
        return recipe.until(self.compared) if self.mixers_of else recipe

    @property
    def compared(self) -> str:
        """The phase whose end is compared in an ablation: the first one."""
        return next(entry.name for entry in load_recipe(self.recipe).timeline if isinstance(entry, Phase))

    def over(self) -> str:
        """Return what an ablation varies, as `lilliput sweep --over` has it."""
        mixers = [write(load_recipe(name).model.shape.mixer) for name in self.mixers_of]
        return f"model.mixer={','.join(mixers)}"


PURPOSES = {
    purpose.name: purpose
    for purpose in (
        Purpose(
            name="try",
            title="try it out: a tiny model of the documentation that is installed here, which answers questions",
            recipe="quickstart",
            minutes=3,
        ),
        Purpose(
            name="base",
            title="a base model of my texts: it continues what you write",
            recipe="own-text",
            sources=("texts",),
            minutes=10,
        ),
        Purpose(
            name="assistant",
            title="an assistant: the language from my texts, how to answer from my conversations",
            recipe="own-chat",
            sources=("texts", "chats"),
            minutes=15,
        ),
        Purpose(
            name="leaderboard",
            title="SLM-10M as its model card has it, with as many tokens of the Hugging Face hub as there is time for",
            recipe="slm-10m",
            minutes=60,
            remark=(
                "The model of the card read 25 billion tokens: compare scores with those of models that read as many "
                "as this one. Texts are streamed from the hub and encoded before training, which no minutes are "
                "counted for"
            ),
        ),
        Purpose(
            name="ablation",
            title=f"an ablation: attention against a recurrence, on the same tokens, {SEEDS} seeds each",
            recipe="quickstart",
            minutes=10,
            mixers_of=("quickstart", "quickstart-gqa"),
            remark=(
                f"The time above is that of the first of {2 * SEEDS} trainings, two mixers with {SEEDS} seeds each; "
                "all of them together take about the minutes asked for"
            ),
        ),
    )
}
