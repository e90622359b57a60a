"""The split: which groups are held out."""

import pytest

from lilliput.base.errors import RecipeError
from lilliput.data.split import Split


def test_split_holds_out_its_share_by_group_and_salt() -> None:
    groups = [f"group-{number}" for number in range(5000)]
    heldout = [group for group in groups if Split(share=0.1).is_heldout(group)]
    assert 420 < len(heldout) < 580
    assert set(heldout) <= {group for group in groups if Split(share=0.2).is_heldout(group)}
    assert set(heldout) != {group for group in groups if Split(share=0.1, salt="x").is_heldout(group)}
    assert not any(map(Split(share=0.0).is_heldout, groups)) and all(map(Split(share=1.0).is_heldout, groups))
    assert heldout[:3] == ["group-2", "group-17", "group-24"], "a fixed hash: the same on every machine"
    with pytest.raises(RecipeError, match="share"):
        Split(share=1.5)
