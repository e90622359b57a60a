"""`lilliput check` of mixers: the guide's is well, and each mistake is found by the check meant for it."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tiny

from lilliput.check.mixer import check_mixers
from lilliput.nn.gqa import GQA, GQAMixer
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.per_layer import PerLayer
from lilliput.nn.rope import RoPE
from lilliput.recipe import load_recipe

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "extend.md"
AVERAGING = re.findall(r"```python\n(# averaging\.py\n.*?)```", GUIDE.read_text(), flags=re.S)[0]


def own(folder, *changes):
    """The guide's recipe with other code in some places, from a file of its own."""
    source = AVERAGING
    for old, new in changes:
        assert old in source
        source = source.replace(old, new, 1)
    file = folder / "averaging.py"
    file.write_text(source)
    return load_recipe(str(file))


def checked(mixer, **changes):
    """The results of a mixer, by check."""
    return {one.check: one for one in check_mixers(replace(tiny.GQA_SPEC, mixer=mixer, **changes))}


def failed(results):
    return [name for name, result in results.items() if result.state == "failed"]


def test_the_mixer_of_the_guide_is_well(tmp_path):
    results = checked(own(tmp_path).model.mixer)
    assert not failed(results) and len(results) == 12
    assert {name for name, one in results.items() if one.state == "skipped"} == {"fused form", "mix_pair"}
    assert "no in_weights" in results["fused form"].says


@pytest.mark.parametrize("name", ["gqa", "odin", "horizons", "options"])
def test_ours_are_well(name):
    assert [one for one in check_mixers(tiny.SPECS[name]) if one.state == "failed"] == []


def test_each_kind_of_a_hybrid_is_checked_and_whole_patterns_are_stacked():
    hybrid = PerLayer(pattern=(HGRN2(heads=2, lower_bounds=True), GQA(heads=4, kv_heads=2, head_width=8)))
    results = list(check_mixers(replace(tiny.GQA_SPEC, mixer=hybrid, layers=4)))
    assert [one for one in results if one.state == "failed"] == []
    assert {one.part for one in results} == {"HGRN2", "GQA", "PerLayer"}
    assert results[-1].check == "stacking" and len(results) == 23


def test_rotary_positions_beside_gates_of_channels_are_told_and_no_mistake():
    results = checked(HGRN2(heads=2, rope=RoPE(theta=100.0)))
    assert results["documents"].state == "ok" and "rotary" in results["documents"].says


PADS = (".masked_fill(is_padding[..., None], 0)", "")
MISTAKES = {
    "it looks ahead": (
        [(".tril()", ".tril(1)")],
        "causality",
        r"position 1 of 20 changes outputs before it: [\d.]+ ap",
    ),
    "it ignores documents": (
        [("if document_ids is None:", "if True:")],
        "documents",
        r"position 6 of document 0 changes outputs of later documents by [\d.]+",
    ),
    "it counts from the row's begin": (
        [
            (
                "share = seen / seen.sum(dim=-1, keepdim=True)",
                "share = seen / torch.arange(1, 1 + len(seen[0]))[:, None]",
            )
        ],
        "documents",
        r"document 1 of a packed row, from position 7 on, and the same document alone: [\d.]+ apart",
    ),
    "its decoding counts wrongly": (
        [("+ step + 1)", "+ step + 2)")],
        "decoding",
        r"decoding step by step, and whole rows: [\d.]+ apart at \[",
    ),
    "padding goes into its state": ([PADS], "rows of different lengths", r"row \d of a batch of 4, .*: [\d.]+ apart"),
    "its state does not stay narrow": (
        [('state["sum"].copy_(sums[:, -1])', 'state["sum"] = sums[:, -1]')],
        "16-bit states",
        r"the state has \{'sum': torch.float32\} after 20 positions, and \{'sum': torch.float16\} before the first",
    ),
    "it says another state": (
        [("        return width\n", "        return 2 * width + length\n")],
        "state_entries",
        "state_entries says 80 numbers after 16 positions at width 32, and the state of a row has 32",
    ),
    "its state has rows last": (
        [
            ("torch.zeros(rows, len(self.output.weight), ", "torch.zeros(len(self.output.weight), rows, "),
            ('sums = state["sum"][:, None]', 'sums = state["sum"].T[:, None]'),
            ('state["sum"].copy_(sums[:, -1])', 'state["sum"].copy_(sums[:, -1].T)'),
        ],
        "forking",
        r"the state of 3 rows has 'sum' of shape \[32, 3\]",
    ),
    "a parameter of it is not used": (
        [("self.value = nn.Linear(width, width)", "self.value, self.spare = nn.Linear(width, width), nn.Linear(2, 2)")],
        "gradients",
        "no gradient reaches parameter spare.weight",
    ),
    "it reads a number back": (
        [
            (
                "        value = self.value(x)\n        return",
                "        value = self.value(x) * (1 if x.sum() > 0 else 1)\n        return",
            )
        ],
        "host_sync",
        "host_sync is False, and forward turns a tensor into a number",
    ),
    "it names its last matrix otherwise": (
        [("self.output", "self.last")] * 5,
        "stacking",
        r'logits after Stack\(times=2, order="zero"\) and before it: [\d.]+ apart',
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_by_its_check(mistake, tmp_path):
    changes, check, says = MISTAKES[mistake]
    results = checked(own(tmp_path, *changes).model.mixer)
    assert check in failed(results)
    assert re.search(says, results[check].says), results[check]
    assert "averaging.py" in results[check].where or "RunningMean" in results[check].where
    assert results[check].hint


def test_what_it_raises_is_told_with_the_line_of_its_file(tmp_path):
    results = checked(
        own(tmp_path, ('state["sum"].copy_(sums[:, -1])', 'state["total"].copy_(sums[:, -1])')).model.mixer
    )
    assert failed(results) == ["decoding", "rows of different lengths", "16-bit states", "forking"]
    line = next(n for n, text in enumerate((tmp_path / "averaging.py").read_text().splitlines(), 1) if "total" in text)
    assert results["decoding"].says == "KeyError: 'total'"
    assert results["decoding"].where.endswith(f"averaging.py:{line}, in RunningMeanMixer.decode")


@dataclass(frozen=True, kw_only=True)
class Unlike(GQA):
    """GQA with one method of another mixer."""

    method: str

    def build(self, width, layer):
        return {"mix": UnlikeMix, "mix_pair": Leaky, "decode": Keeping}[self.method](self, width, layer)


class UnlikeMix(GQAMixer):
    def forward(self, x, document_ids):
        return 1.01 * super().forward(x, document_ids)


class Leaky(GQAMixer):
    def mix_pair(self, clean, noisy, document_ids, target_document_ids):
        mixed, read = super().mix_pair(clean, noisy, document_ids, target_document_ids)
        return mixed, read._replace(x=read.x + 1e-6 * read.x.roll(1, dims=1))


class Keeping(GQAMixer):
    """Counts, beside its state, how often it was called."""

    calls = 0

    def decode(self, x, state, positions, lengths):
        self.calls = self.calls + 1 if int(positions.max()) else 0
        return super().decode(x, state, positions, lengths) * (1 + self.calls)


@pytest.mark.parametrize(
    ("method", "check", "says"),
    [
        ("mix", "fused form", r"mix of the products with in_weights, and forward: 0\.0\d+ apart"),
        ("mix_pair", "mix_pair", r"noised position 0 changes other noised ones: [\de.-]+ apart"),
        ("decode", "decoding", r"decoding step by step, and whole rows: [\d.]+ apart at \[\d, 1"),
    ],
)
def test_other_forms_are_compared(method, check, says):
    results = checked(Unlike(heads=4, kv_heads=2, head_width=8, method=method))
    assert check in failed(results) and re.search(says, results[check].says), results[check]
