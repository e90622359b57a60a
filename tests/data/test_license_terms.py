"""Licenses of texts beside that of a recipe: names are compared, and what the table does not have is not judged."""

from dataclasses import replace

import pytest
import tiny

from lilliput.base.errors import RecipeError
from lilliput.base.spec import to_plain
from lilliput.data.corpora.arithmetic import Arithmetic
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered, Length
from lilliput.data.corpora.hub import HubChats, HubText
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.license_terms import disagreements, license_names, terms_of, unnamed, without_licenses
from lilliput.plan.count import plan
from lilliput.recipe import load_recipe
from lilliput.run.license_check import check_license, terms


def text(license):
    return to_plain(HubText(dataset="a/b", license=license))


@pytest.mark.parametrize(
    ("recipe", "corpus", "says"),
    [
        ("apache-2.0", "cc-by-nc-4.0", "forbids commercial use"),
        ("mit", "CC-BY-NC-SA-3.0", "forbids commercial use"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", None),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "asks that adaptations be shared under the same license"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-3.0", None),
        ("mit", "cc-by-sa-3.0", "asks that adaptations be shared under the same license"),
        ("cc-by-sa-4.0", "cc-by-sa-3.0", None),
        ("mit", "cc-by-nd-4.0", "allows no adaptations to be shared"),
        ("apache-2.0", "gpl-3.0", "asks that adaptations be shared under the same license"),
        ("apache-2.0", "odc-by", None),
        ("apache-2.0", "cc0-1.0", None),
        ("apache-2.0", "lfm1.0", None),  # not in the table
        ("lfm1.0", "cc-by-nc-4.0", None),
        (None, "cc-by-nc-4.0", None),  # which grants nothing
    ],
)
def test_terms_that_the_recipe_does_not_have_are_told(recipe, corpus, says):
    found = list(disagreements(recipe, {"c": text(corpus)}))
    assert [one.says for one in found] == ([] if says is None else [says])
    assert all(one.is_plain == (says == "forbids commercial use") for one in found)
    assert all(str(one) == f"the recipe names {recipe}; the corpus c names {corpus}, which {says}" for one in found)


def test_licenses_are_found_within_filters_and_those_of_a_stand_in_are_its_own():
    inner = HubChats(dataset="a/b", license="mit")
    teacher = Teacher(model="c/d", prompts=inner, license="cc-by-nc-4.0")
    assert license_names(to_plain(teacher)) == ["cc-by-nc-4.0", "mit"]
    assert license_names(to_plain(replace(teacher, stand_in="answers"))) == ["mit"]
    files = Filtered(source=TextFiles(paths=("a",), license="cc-by-4.0"), filters=(Length(),))
    assert license_names(to_plain(files)) == ["cc-by-4.0"] and "license" not in to_plain(TextFiles(paths=("a",)))
    named = {"files": files, "own": TextFiles(paths=("a",)), "sums": Arithmetic(count=3)}
    assert list(unnamed({name: to_plain(one) for name, one in named.items()})) == ["own"]
    assert terms_of("cc-by-4.0") == terms_of("MIT") and terms_of("other") is None
    assert without_licenses(to_plain(files)) == without_licenses(
        to_plain(replace(files, source=TextFiles(paths=("a",))))
    )


def test_a_recipe_that_grants_what_its_texts_forbid_is_refused_and_others_are_noted(tmp_path):
    base = tiny.recipe(tmp_path)
    ours = replace(base, corpora={**base.corpora, "texts": replace(base.corpora["texts"], license="cc-by-nc-4.0")})
    with pytest.raises(RecipeError, match="names apache-2.0; the corpus texts names cc-by-nc-4.0") as refused:
        list(check_license(replace(ours, license="apache-2.0")))
    assert "--set license=cc-by-nc-4.0" in refused.value.hint
    for license in (None, "cc-by-nc-4.0"):
        assert not list(check_license(replace(ours, license=license)))
    shared = replace(base, corpora={**base.corpora, "texts": replace(base.corpora["texts"], license="cc-by-sa-4.0")})
    shared = replace(shared, license="mit")
    (note,) = check_license(shared)
    assert note.startswith("note: the recipe names mit; ") and "\n  where: " in note and "\n  hint: " in note
    assert terms(shared, shared.phases.values()) == {
        "disagreements": [plan(shared)["license_notes"][0]],
        "unnamed": ["chats"],
    }


def test_of_the_recipes_here_none_is_refused():
    for name in ("mtlm1-200m", "odinnext-138m", "slm-10m", "quickstart"):
        list(check_license(load_recipe(name)))
