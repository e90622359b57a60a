"""Public text in the place of a collection that is not here: the same documents, and what is missing is said."""

from dataclasses import replace

import tiny

from lilliput.data.corpora.concatenated import at_revision
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.hub import HubText
from lilliput.data.corpora.stand_in import StandIn
from lilliput.overrides import replace_sources
from lilliput.plan.corpora import source
from lilliput.recipe import load_recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_it_has_the_documents_of_its_source_and_goes_on_where_that_does(tmp_path):
    texts, _ = tiny.write_corpora(tmp_path)
    files = TextFiles(paths=(str(texts),))
    stand_in = StandIn(source=files, missing="letters of an aunt")
    items = list(stand_in.iterate_from())
    assert [item for item, _ in items] == list(stand_in.documents()) == list(files.documents())
    assert [item for item, _ in stand_in.iterate_from(items[2][1])] == list(files.documents())[3:]
    assert stand_in.is_seekable and stand_in.identity() == files.identity()
    assert stand_in.fraction_read()(items[-1][1]) == 1.0
    assert source(stand_in).endswith(", in the place of letters of an aunt")
    hub = replace(stand_in, source=HubText(dataset="a/b", license="mit"))
    assert at_revision(hub, ["a/b", COMMIT]).source.revision == COMMIT


def test_documents_of_ones_own_come_instead(tmp_path):
    texts, _ = map(str, tiny.write_corpora(tmp_path))
    recipe = load_recipe("mtlm1-200m")
    assert isinstance(recipe.corpora["knowledge"], StandIn)
    assert replace_sources(recipe, {"knowledge": (texts,)}).corpora["knowledge"] == TextFiles(paths=(texts,))
