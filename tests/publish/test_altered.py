"""Whatever is changed of a card's figures, tables and scores, the comparison with a fresh card names it."""

import re

import pytest
import yaml
from card_records import record_of

from lilliput.publish.card.altered import FIGURE, compare
from lilliput.publish.card.card import card

FRESH = card(record_of(chat=True))
ARITHMARK = "| arithmark2-synthetic | acc ↑ | 25.4% | 1.9% | 25.0% | 500 | within two standard errors of chance |\n"
RESULT = """  - task:
      type: text-generation
    dataset:
      name: MMLU
      type: mmlu
    metrics:
    - type: accuracy
      value: {}
      name: acc
"""
LAST_RESULT = "      value: 0.83\n      name: right answer preferred\n"


def altered(before: str, after: str) -> list[str]:
    """What is altered of a card in which one text, which is there once, was replaced."""
    assert FRESH.count(before) == 1
    return list(compare(FRESH.replace(before, after), FRESH).altered)


def test_a_card_as_it_was_made_has_nothing_to_say():
    found = compare(FRESH, FRESH)
    assert found.figures > 200
    assert not found.altered and not found.added


def test_every_figure_that_is_changed_is_named():
    for place in list(FIGURE.finditer(FRESH))[::7]:
        start = place.start() + re.search(r"\d", place[0]).start()
        digit = str((int(FRESH[start]) + 1) % 10)
        (found,) = compare(FRESH[:start] + digit + FRESH[start + 1 :], FRESH).altered
        changed = f"{FRESH[place.start() : start]}{digit}{FRESH[start + 1 : place.end()]}".split()[0]
        before, after = found.split(" where the record has ")
        assert changed in before and place[0].split()[0] in after, found
        assert found.startswith(f"line {FRESH.count(chr(10), 0, start) + 1}: ")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("| 1.8302 |", "| -1.8302 |", "-1.8302 where the record has 1.8302"),
        ("at most 4.1e-06", "at most -4.1e-06", "-4.1e-06 where the record has 4.1e-06"),
        ("at most 4.1e-06", "at most 4.1e-09", "4.1e-09 where the record has 4.1e-06"),
        ("at most 4.1e-06", "at most 4.1e+06", "4.1e+06 where the record has 4.1e-06"),
        ("at most 4.1e-06", "at most 4.1", "4.1 where the record has 4.1e-06"),
        ("needs 10.8% fewer", "needs 10.8 fewer", "10.8 fewer where the record has 10.8% fewer"),
        ("needs 10.8% fewer", "needs 10.8% more", "10.8% more where the record has 10.8% fewer"),
        ("| 35.06 |", "| 35.06% |", "Value 35.06% where the record has 35.06"),
        ("| 25.4% |", "| 25.4 |", "Value 25.4 where the record has 25.4%"),
        ("3.4 M parameters", "3.4 B parameters", "3.4 B where the record has 3.4 M"),
        ("(6.6 MiB) are", "(6.6 KiB) are", "6.6 KiB where the record has 6.6 MiB"),
    ],
)
def test_signs_exponents_and_units_are_of_the_figure(before, after, said):
    (found,) = altered(before, after)
    assert said in found


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("| arithmark2-synthetic |", "| PIQA |", "Task PIQA where the record has arithmark2-synthetic"),
        ("acc ↑", "acc_norm ↑", "Metric acc_norm ↑ where the record has acc ↑"),
        ("| Chance |", "| Best known |", "Best known where the record has Chance"),
        ("acc ↑ | 25.4% | 1.9% | 25.0%", "acc ↑ | 25.0% | 1.9% | 25.4%", "Value 25.0% where the record has 25.4%"),
        ("within two standard errors of chance", "far above chance", "Note far above chance where"),
        ("| token unigram |", "| GPT-2 |", "GPT-2 where the record has token unigram"),
        (ARITHMARK, f"<!--\n{ARITHMARK}-->\n", "gone: arithmark2-synthetic | acc"),
        (ARITHMARK, f"\n```\n{ARITHMARK}```\n", "gone: arithmark2-synthetic | acc"),
    ],
)
def test_a_row_is_the_records_in_every_cell(before, after, said):
    assert any(said in one for one in altered(before, after))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("value: 0.254", "value: 0.854", "model-index.0.results.1.metrics.0.value: 0.854"),
        ("value: 0.254", "value: -0.254", "value -0.254 where the record has 0.254"),
        ("value: 0.254", "value: 0.254e1", "value 0.254e1 where the record has 0.254"),
        ("value: 0.254", "value: 25.4%", "25.4%"),
        ("- name: garden-instruct", "- name: garden-70b", "value garden-70b where the record has garden-instruct"),
        ("name: arithmark2-synthetic", "name: PIQA", "model-index.0.results.1.dataset.name: PIQA"),
        ("name: acc\n", "name: acc_norm\n", "value acc_norm where the record has acc"),
        (LAST_RESULT, LAST_RESULT + RESULT.format(0.61), "line 46: model-index.0.results.3.dataset.name: MMLU"),
        (LAST_RESULT, LAST_RESULT + RESULT.format("best"), "model-index.0.results.3.metrics.0.value: best"),
        ("value: 0.254", "value: 0.99\n      value: 0.254", "model-index.0.results.1.metrics.0.value: 0.99"),
        ("\n---\n\n# garden", "\nmodel-index: [{name: mine}]\n---\n\n# garden", "model-index.0.name: mine"),
        ("model-index:\n", "index:\n", "gone: model-index.0.name: garden-instruct"),
    ],
)  # fmt: skip
def test_the_scores_of_the_front_matter_are_the_records(before, after, said):
    assert any(said in one for one in altered(before, after))


def test_a_score_cannot_come_in_by_an_alias():
    changed = FRESH.replace("language: en\n", f"language: en\nmine: &mine\n{RESULT.format(0.61)}")
    changed = changed.replace("  results:\n", "  results: *mine\n  others:\n")
    assert any("model-index.0.results: an alias" in one for one in compare(changed, FRESH).altered)


def test_the_front_matter_has_to_be_yaml():
    with pytest.raises(yaml.YAMLError):
        compare(FRESH.replace("language: en", "language: [en"), FRESH)


@pytest.mark.parametrize("line", [line for line in FRESH.splitlines() if line.startswith("| ") and "%" in line])
@pytest.mark.parametrize(
    "invented",
    [
        "| MMLU | acc ↑ | 61.0% | 0.4% | 25.0% | 14,042 | |",
        "| MMLU | acc ↑ | the best | | | | |",
        "   | MMLU | acc ↑ | 61.0% |",
        "      | MMLU | acc ↑ | 61.0% |",
        "\t| MMLU | acc ↑ | 61.0% |",
        "MMLU | acc ↑ | 61.0%",
        "MMLU",
        "<tr><td>MMLU</td><td>61.0%</td></tr>",
        "  <TR>\n<td>MMLU<td>61.0%",
        "\n<table><tr><td>MMLU</td><td>the best</td></tr></table>\n",
        "\nMMLU | acc\n---|---\n61.0% | 0.4%\n",
        "\n> | MMLU | acc |\n> |---|---|\n> | 61.0% | 0.4% |\n",
        "\n- | MMLU | acc |\n  |---|---|\n  | 61.0% | 0.4% |\n",
        "\n    | MMLU | 61.0% |\n",
    ],
)
def test_a_row_that_is_gone_or_added_is_refused(line, invented):
    (gone,) = compare(FRESH.replace(line + "\n", ""), FRESH).altered
    assert gone.startswith("gone: ")
    found = compare(FRESH.replace(line, f"{line}\n{invented}"), FRESH)
    assert any("MMLU" in one and one.startswith("no record has line ") for one in found.altered)


def test_words_of_ones_own_are_no_change_and_their_figures_are_listed():
    edited = FRESH.replace("## Facts", "Thanks to **everybody**.\nTrained in 3 days.\n\n<img src=a.png>\n\n## Facts")
    edited = edited.replace("It works with transformers", "It runs with transformers")
    edited = edited.replace('name = "garden-instruct"', 'name = "me/garden-instruct"')
    edited = edited.replace("license: unknown\n", "license: mit\nbase_model: me/garden\nco2_eq_emissions: 12\n")
    edited = edited.replace("- lilliput\n", "- lilliput\n- gardening\n").replace("|---|---|\n", "| --- | :-- |\n")
    found = compare(edited, FRESH)
    assert not found.altered
    assert [one.partition(": ")[2] for one in found.added] == ["co2_eq_emissions: 12", "Trained in 3 days."]


def test_the_order_of_fields_is_no_change():
    head, _, body = FRESH.removeprefix("---\n").partition("\n---\n")
    sorted_fields = yaml.safe_dump(yaml.safe_load(head), sort_keys=True)
    found = compare(f"---\n{sorted_fields}---\n{body}", FRESH)
    assert sorted_fields.strip() != head.strip()
    assert not found.altered and not found.added
