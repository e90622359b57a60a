"""Suites by name, and the averages over their scores."""

import math
from dataclasses import replace

import pytest

from lilliput.base.errors import RecipeError
from lilliput.evals.averages import ARC_ACC_NORM, AVG_SLM, HEADLINE, INTELLIGENCE_INDEX, Average, averaged
from lilliput.evals.score import Score
from lilliput.evals.suites import ARITHMARK2, MTLM, OPEN_SLM, QUICKSTART, SMOKE, SUITES, Suite, named

Scores = dict[tuple[str, str], Score]


def scores(metric: str = "acc_norm", **percents: float) -> Scores:
    """Scores in percent, each with a standard error of 0.01; arithmetic by its acc."""
    found = {}
    for task, percent in percents.items():
        used = "acc" if task.startswith("arithmark") else metric
        found[task, used] = Score(
            task=task,
            metric=used,
            value=percent / 100,
            stderr=0.01,
            chance=0.25,
            items=100,
            higher_is_better=True,
        )
    return found


SLM = scores(hellaswag=26.53, arc_easy=30.47, arc_challenge=25.00, piqa=50.92, arithmark2=24.32)
SMOLLM2 = scores(hellaswag=43.22, arc_easy=58.63, arc_challenge=29.69, piqa=68.44, arithmark3=39.20)


def value_of(average: Average, found: Scores) -> float:
    result = averaged(average, found)
    assert result is not None
    return result.value


def test_the_average_of_the_slm_card_is_that_on_the_card() -> None:
    assert round(100 * value_of(AVG_SLM, SLM), 2) == 32.38
    assert value_of(HEADLINE, SLM) == pytest.approx((0.2653 + 0.27735 + 0.5092) / 3)
    assert value_of(ARC_ACC_NORM, SLM) == pytest.approx(0.27735)


def test_the_intelligence_index_is_that_of_the_leaderboard() -> None:
    assert round(100 * value_of(INTELLIGENCE_INDEX, SMOLLM2), 1) == 27.1
    at_chance = scores(hellaswag=25, arc_easy=25, arc_challenge=25, piqa=50, arithmark3=25)
    assert value_of(INTELLIGENCE_INDEX, at_chance) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("average", OPEN_SLM.averages, ids=lambda average: average.name)
def test_an_average_without_one_of_its_inputs_is_not_given(average: Average) -> None:
    whole = SLM | SMOLLM2 | scores(metric="acc", arc_easy=30, arc_challenge=25)
    assert averaged(average, whole) is not None
    for term in average.terms:
        lacking = {key: score for key, score in whole.items() if key != (term.task, term.metric)}
        assert averaged(average, lacking) is None


def test_look_alike_arithmetic_is_in_no_average() -> None:
    lookalike = {key: score for key, score in SLM.items() if key[0] != "arithmark2"}
    lookalike |= scores(arithmark2_synthetic=24.32)
    assert averaged(AVG_SLM, lookalike) is None
    tasks = {term.task for suite in SUITES.values() for average in suite.averages for term in average.terms}
    assert "arithmark2_synthetic" not in tasks


def test_errors_of_independent_tasks_add_in_squares() -> None:
    found = averaged(AVG_SLM, SLM)
    assert found is not None
    assert found.stderr == pytest.approx(0.01 * math.sqrt(3 / 16 + 2 / 64))
    index = averaged(INTELLIGENCE_INDEX, SMOLLM2)
    assert index is not None
    slopes = [1 / 0.75, 0.5 / 0.75, 0.5 / 0.75, 1 / 0.5, 0.65 / 0.75]
    assert index.stderr == pytest.approx(0.01 * math.sqrt(sum(slope**2 for slope in slopes)) / 3.65)


def test_an_average_of_a_task_without_an_error_has_none() -> None:
    found = averaged(
        AVG_SLM, SLM | {key: replace(score, stderr=None) for key, score in SLM.items() if key[0] == "piqa"}
    )
    whole = averaged(AVG_SLM, SLM)
    assert found and whole and found.stderr is None and found.value == whole.value


def test_averages_weigh_what_their_suite_measures() -> None:
    for suite in SUITES.values():
        metrics = {use.task: use.metrics for use in suite.uses}
        for average in suite.averages:
            assert all(term.metric in metrics[term.task] for term in average.terms)
    for average in (AVG_SLM, HEADLINE, ARC_ACC_NORM, INTELLIGENCE_INDEX):
        assert sum(term.weight for term in average.terms) == pytest.approx(1)


def test_the_suites_of_the_cards_have_their_tasks() -> None:
    assert [use.task for use in OPEN_SLM.tasks] == ["hellaswag", "arc_easy", "arc_challenge", "piqa"]
    assert len(MTLM.tasks) == 11 and [use.task for use in MTLM.optional] == ["wsc", "wsc273"]
    assert SMOKE.tasks == OPEN_SLM.tasks and SMOKE.limit == 100
    assert all({"acc", "acc_norm"} == set(use.metrics) for use in OPEN_SLM.tasks)
    metrics = {use.task: use.metrics[0] for use in named("odinnext").tasks}
    assert metrics == {"hellaswag": "acc_norm", "arc_easy": "acc", "arc_challenge": "acc", "piqa": "acc"}


def test_a_suite_can_be_restricted_to_some_of_its_tasks() -> None:
    some = OPEN_SLM.only(("piqa", "arithmark2", "hellaswag"))
    assert [use.task for use in some.tasks] == ["hellaswag", "piqa", "arithmark2"]
    assert some.optional == some.made == ()
    assert OPEN_SLM.only(("arithmark2_synthetic",)) == replace(
        OPEN_SLM, tasks=(), optional=(), made=(OPEN_SLM.made[-1],)
    )
    with pytest.raises(RecipeError) as caught:
        OPEN_SLM.only(("piqa", "hellaswog"))
    assert "'hellaswog'" in caught.value.what and "hellaswag" in caught.value.hint


def test_a_misspelt_suite_names_the_nearest() -> None:
    assert named("quickstart") is QUICKSTART
    with pytest.raises(RecipeError) as caught:
        named("open-smm")
    assert "'open-smm'" in caught.value.what and "open-slm" in caught.value.hint


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_every_figure_of_a_suite_has_a_name_of_its_own(suite: Suite) -> None:
    uses = [*suite.tasks, *suite.optional, *suite.made]
    assert len({use.display for use in uses}) == len({use.task for use in uses}) == len(uses)
    assert ARITHMARK2.display not in {use.display for use in suite.made}
