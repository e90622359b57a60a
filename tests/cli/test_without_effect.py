"""An option that would change nothing is refused before anything is read, and one that was left out is not."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lilliput.base.errors import LilliputError
from lilliput.cli import app
from lilliput.cli.without_effect import refuse_without_effect

LIKE_THE_RECIPE = ("eval", "quickstart")
ON_A_TEXT = ("eval", "runs/mine", "--text", "notes.txt")
ON_A_TASK = ("eval", "runs/mine", "--task", "mine.yaml")
VERIFY, PUSH = ("publish", "runs/mine", "--verify"), ("publish", "runs/mine", "--push", "me/mine")
SHOW, REPORT = ("data", "runs/mine", "--show"), ("data", "runs/mine", "--report")
TOKENIZER = ("tokenizer", "runs/mine", "--report")
RECIPE = (("--set", "seed=1"), ("--source", "texts=a"), ("--shrink",))
"""Options that change a recipe, of which what reads a run makes nothing."""
ITEMS = ("--eval-data", "eval")
CASES = [
    *((LIKE_THE_RECIPE, ("--device", device)) for device in ("cpu", "auto")),
    *((LIKE_THE_RECIPE, ("--dtype", dtype)) for dtype in ("bfloat16", "float32")),
    *((LIKE_THE_RECIPE, ("--model-code", code)) for code in ("transformers", "auto")),
    (LIKE_THE_RECIPE, ("--batch-size", "4")),
    (LIKE_THE_RECIPE, ("--tasks", "piqa")),
    (LIKE_THE_RECIPE, ("--limit", "0")),
    (LIKE_THE_RECIPE, ("--num-fewshot", "0")),
    (LIKE_THE_RECIPE, ("--records", "items.jsonl")),
    (LIKE_THE_RECIPE, ("--trust-remote-code",)),
    (LIKE_THE_RECIPE, ("--column", "text")),
    *((ON_A_TEXT, option) for option in (("--tasks", "piqa"), ("--num-fewshot", "0"), ITEMS)),
    *((ON_A_TASK, option) for option in (("--tasks", "piqa"), ("--num-fewshot", "0"), ("--column", "text"))),
    *((way, option) for way in (VERIFY, PUSH) for option in (*RECIPE, ITEMS, ("--format", "hf,gguf"))),
    (PUSH, ("--json",)),
    *((VERIFY, option) for option in (("--yes",), ("--private",))),
    *((way, option) for way in (SHOW, REPORT) for option in (*RECIPE, ("--verify",), ("--endpoint", "http://x"))),
    *((SHOW, option) for option in (ITEMS, ("--page", "a.html"))),
    *((REPORT, option) for option in (("--phase", "pretrain"), ("--step", "1"), ("--rows", "1"), ("--ids",))),
    *((TOKENIZER, option) for option in RECIPE),
    *((TOKENIZER[:2], option) for option in (("--beside", "a"), ("--page", "a.html"))),
    *(
        (("judge", "runs/mine"), option)
        for option in (("--endpoint", "http://x"), ("--verdicts", "verdicts.jsonl"), ("--concurrency", "8"))
    ),
    (("judge", "runs/mine"), ("--price", "1,2")),
    (("curate", "quickstart", "--out", "shards", "--no-decontaminate"), ITEMS),
    *(
        (("generate", "runs/mine", "--greedy"), option)
        for option in (("--temperature", "1"), ("--top-k", "0"), ("--top-p", "1"), ("--min-p", "0"), ("--seed", "0"))
    ),
]


@pytest.mark.parametrize(("command", "option"), CASES, ids=lambda words: " ".join(words))
def test_an_option_without_effect_is_refused(
    command: tuple[str, ...], option: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, [*command, *option]).exception
    assert isinstance(error, LilliputError), error
    assert error.what.startswith(f"{option[0]} has no effect w") and error.where == option[0]
    assert error.hint.startswith("leave it out, or ")
    assert not list(tmp_path.iterdir())


def test_several_are_named_together() -> None:
    given = {"--a": 0, "--b": None, "--c": ["x"], "--d": False, "--e": True, "--f": "", "--g": []}
    with pytest.raises(LilliputError, match="^--a, --c and --e have no effect without --x\n") as refused:
        refuse_without_effect(given, "without --x", "give --x too")
    assert refused.value.where == "--a --c --e" and refused.value.hint == "leave them out, or give --x too"
    refuse_without_effect({"--b": None, "--d": False, "--f": "", "--g": []}, "without --x", "give --x too")
