"""Which rate and how many passes does instruction tuning want?

    python benchmarks/post_training_rates.py FOLDER --texts FILE... --chats FILE... --pairs FILE...
        [--rates 3e-4,1e-3,3e-3,1e-2] [--passes 1,2] [--models gqa,hgrn2] [--small] [--device DEVICE] [--out FILE.json]

In the FOLDER of `benchmarks/post_training.py`, and on its data: the pretrained model, which is trained if it is not
there, is tuned on the conversations with AdamW at each rate for each number of passes, with its warm-up and cosine, and
judged as every step there. The best setting has the fewest bits per byte of held-out answers; the others show what that
costs. What is done is not done again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from post_training import LOST, Workplace, heldout_texts, options, recipe_of, trained_base, tuned, weights_after
from post_training_page import ANSWERS, items_of, judging_table

from lilliput.base.environment import environment
from lilliput.base.files import write_json, write_text
from lilliput.base.run_folder import RunFolder
from lilliput.data.chat_rows import ChatData
from lilliput.publish.pretrained import PretrainedModel, PretrainedTokenizer
from lilliput.recipe import Recipe, read_recipe
from lilliput.run.api import train_recipe
from lilliput.sweep.shared_data import link_prepared


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("--rates", default="3e-4,1e-3,3e-3,1e-2")
    arguments.add_argument("--passes", default="1,2")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    work = Workplace(given)
    rates, passes = (list(map(float, text.split(","))) for text in (given.rates, given.passes))
    tried = [(rate, number) for number in passes for rate in rates]
    found = {name: sweep(work, name, tried) for name in work.models}
    write_json(
        out := given.out or work.folder / "rates.json",
        {"models": found} | work.about() | {"environment": environment()},
    )
    page = ["# Rates of instruction tuning (`benchmarks/post_training_rates.py`)", ""]
    for name, model in found.items():
        page += [f"## {name}, {model['parameters']:,} parameters", "", *judging_table(model["steps"]), ""]
        page += [f"Fewest bits per byte of held-out answers: {model['best']}.", ""]
    write_text(out.with_suffix(".md"), "\n".join(page))
    print("\n".join(page))


def sweep(work: Workplace, name: str, tried: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The figures of each setting, and of the base."""
    whole, run = recipe_of(work, name, work.folder / "teacher"), work.folder / name
    base = trained_base(work, name, whole)
    texts, steps, donors = heldout_texts(run, work.settings), {}, [run]
    for rate, passes in tried:
        setting = f"{rate:g}, {passes:g} passes"
        folder = work.folder / "rates" / name / f"{rate:g}-{passes:g}"
        recipe = Recipe(
            name=name,
            about="A small model that is tuned.",
            corpora={"chats": work.chats},
            tokenizer=PretrainedTokenizer(checkpoint=str(base)),
            split=whole.split,
            model=PretrainedModel(checkpoint=str(base)),
            timeline=(
                tuned("sft", work.tokens_of("chats", passes), rate, ChatData(corpus="chats", lost=LOST), work.settings),
            ),
        )
        with work.stage(f"{name}: sft at {setting}"):
            with RunFolder(folder) as opened:
                link_prepared(opened, recipe, [(one, read_recipe(one)) for one in donors])
            train_recipe(recipe, folder, machine=work.machine, quiet=True)
        donors = [*donors[:1], folder]
        steps[setting] = work.judged(
            name, f"sft at {setting}", lambda folder=folder: weights_after(folder, ["sft"]), texts
        )
    best = min(steps, key=lambda setting: bits(steps[setting]))
    return {
        "parameters": weights_after(folder, ["sft"]).model.parameter_counts()["total"],
        "best": best,
        "steps": steps,
    }


def bits(step: dict[str, Any]) -> float:
    """Bits per byte of held-out answers."""
    return items_of(step)[ANSWERS].value


if __name__ == "__main__":
    main()
