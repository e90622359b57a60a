"""The card says what the record says, says it in valid Markdown and YAML, and refuses a record with a gap."""

import copy
import re
import subprocess
import sys
from ast import literal_eval
from dataclasses import replace

import pytest
import yaml
from card_records import DIGESTS, HGRN, PHASES, QWEN, record_of

from lilliput.base.errors import ExportError
from lilliput.nn.ffn import SwiGLU2
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.rope import RoPE
from lilliput.publish.card.card import card
from lilliput.publish.card.markdown import source
from lilliput.publish.export import Generation
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.tokenizer.chatml import CHATML


@pytest.fixture
def record():
    return record_of(chat=True)


def section(text, title):
    """What stands under a heading; headings in code blocks are none."""
    parts = re.split(r"^##+ (.+)$", re.sub(r"^(`{3,})[^`]*?\n.*?\n\1$", "", text, flags=re.M | re.S), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def rows(text, title):
    """Cells of the rows of the table in a section, without its head."""
    lines = [line for line in section(text, title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_front_matter_is_what_the_hub_reads(record):
    from huggingface_hub import ModelCard

    text = card(record)
    plain = yaml.safe_load(text.split("---\n")[1])
    assert plain["library_name"] == "transformers" and plain["pipeline_tag"] == "text-generation"
    assert plain["tags"] == ["lilliput", "small-language-model", "hgrn2_lm"] and plain["language"] == "en"
    read = ModelCard(text)
    assert read.data.model_name == "garden-instruct"
    figures = [(each.dataset_name, each.metric_name, each.metric_value) for each in read.data.eval_results]
    assert sorted(figures) == sorted((s["task"], s["metric"], s["value"]) for s in record["evaluation"]["scores"])
    assert read.data.to_dict()["model-index"][0]["results"][1]["metrics"][0]["type"] == "accuracy"


def test_the_license_is_only_what_the_recipe_names(record):
    text = card(record)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "unknown"
    assert "names no license" in section(text, "License")
    record["recipe"]["license"] = "apache-2.0"
    text = card(record)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "apache-2.0"
    assert "`apache-2.0`" in section(text, "License") and "names no license" not in text


def test_results_are_the_scores(record):
    table = rows(card(record), "Results")
    assert table == [
        ["held-out text, bits per byte", "bits_per_byte ↓", "1.8302", "0.0252", "—", "312", ""],
        ["arithmark2-synthetic", "acc ↑", "25.4%", "1.9%", "25.0%", "500", "within two standard errors of chance"],
        ["held-out questions", "replies that end by themselves ↑", "91.0%", "2.9%", "—", "100", ""],
        ["held-out questions", "right answer preferred ↑", "83.0%", "3.8%", "50.0%", "100",
         "by summed log-likelihood: 81.0%"],
    ]  # fmt: skip


def test_results_say_whose_forward_pass_was_scored(record):
    ours = "Measured on this folder by Lilliput's own forward pass with lm_eval"
    record["evaluation"]["model_code"] = "lilliput"
    assert ours in section(card(record), "Results")
    record["evaluation"]["model_code"] = "transformers"
    assert ours not in section(card(record), "Results")


def test_averages_say_what_they_are_made_of(record):
    assert rows(card(record), "Averages") == [["`headline`", "35.06", "0.71", "(a + b) / 2, acc_norm"]]
    record["evaluation"]["averages"] = []
    assert "### Averages" not in card(record)


def test_licenses_of_corpora_are_those_of_their_specs(record):
    assert "Licenses, as the recipe states them" not in card(record)
    record["recipe"]["corpora"]["docs"]["parts"] = [
        {"license": "odc-by"},
        {"license": "cc-by-4.0"},
        {"license": "odc-by"},
    ]
    assert "`docs` odc-by, cc-by-4.0." in section(card(record), "Data")


def test_passes_and_terms_of_licenses_are_told_where_they_are_recorded(record):
    before = card(record)
    assert "Passes over" not in before and "unknown, as the recipe names none" not in before
    said = "the recipe names mit; the corpus docs names cc-by-sa-4.0, which asks that adaptations be shared"
    record |= {"passes": {"docs": 3.2, "questions": 0.5}, "terms": {"disagreements": [said], "unnamed": ["poems"]}}
    text = card(record)
    assert "Passes over the training side: `docs` 3.20, `questions` 0.50." in section(text, "Data")
    assert "unknown, as the recipe names none: `poems`." in section(text, "Data")
    assert f"Note that {said}.".replace("-", "") in section(text, "License").replace("\\", "").replace("-", "")


def test_the_comparison_is_sorted_and_says_who_sees_the_data(record):
    text = card(record)
    table = rows(text, "Compared with what anybody has")
    assert [line[:3] for line in table] == [
        ["**this model**", "**1.8302**", ""],
        ["`xz -9` after the training text", "2.0522", "sees the same data"],
        ["`xz -9`", "2.3402", ""],
        ["token unigram", "3.1139", ""],
    ]
    assert "10.8% fewer bits" in text and "costs it more bits" not in section(text, "Limits")
    record["evaluation"]["scores"][0]["value"] = 2.2
    text = card(record)
    assert [line[0] for line in rows(text, "Compared with what anybody has")][:2] == [
        "`xz -9` after the training text",
        "**this model**",
    ]
    assert "7.2% more bits" in text and "than it costs `xz -9` after the training text." in section(text, "Limits")
    record["evaluation"]["scores"][0]["value"] = 5.2
    assert "2.5 times the bits of `xz -9`" in card(record)


def test_without_bits_per_byte_there_is_nothing_to_compare(record):
    record["evaluation"]["scores"] = record["evaluation"]["scores"][1:]
    record["evaluation"]["baselines"] = {}
    assert "### Compared" not in card(record) and "xz" not in card(record)


def test_the_facts_are_those_of_the_released_shape(record):
    facts = dict(rows(card(record), "Facts"))
    counts = {key: f"{value:,}" for key, value in record["release"]["parameters"].items()}
    assert (
        facts["Parameters"]
        == f"{counts['total']}: {counts['embedding']} in the embedding, {counts['non_embedding']} elsewhere"
    )
    assert facts["Vocabulary"] == "4,098 tokens"  # the recipe's 4,096 and two added ones
    assert facts["Architecture"] == "`HGRN2LMForCausalLM`: 6 layers of width 192"
    assert facts["Mixer"] == "HGRN2 recurrence (3 heads of width 64, no rotary positions)"
    assert "73,728 numbers (recurrent state)" in facts["Memory of a text"]  # 6 layers x 3 heads x 64 x 64
    assert "294,912 bytes in fp32" in facts["Memory of a text"]
    assert facts["Context"] == "2,048 tokens; trained on rows of at most 256"
    assert facts["Weights"] == "BF16, 6,892,104 bytes (6.6 MiB)"


def test_attention_is_counted_by_the_token():
    text = card(record_of(chat=False, model=QWEN, layout=Qwen3Format(context=512)))
    facts = dict(rows(text, "Facts"))
    assert facts["Mixer"].startswith("grouped-query attention (6 query heads, 2 key-value heads, width 32, QK-norm")
    assert facts["Memory of a text"].startswith("768 numbers for each of its tokens")  # 6 layers x 2 x 2 heads x 32
    assert facts["Architecture"].startswith("`Qwen3ForCausalLM`") and facts["Vocabulary"] == "4,096 tokens"
    assert "head a matrix of its own" in facts["Feed-forward, norm, head"]


def test_what_names_leave_open_is_said_where_it_is_unusual():
    mixer = HGRN2(heads=3, rope=RoPE(layers="even", layout="interleaved"), rope_tie_gate=True, lower_bounds=True)
    model = replace(HGRN, mixer=mixer, ffn=SwiGLU2(inner=512, square="product"))
    text = card(record_of(chat=False, model=model))
    facts = dict(rows(text, "Facts"))
    assert facts["Mixer"] == (
        "HGRN2 recurrence (3 heads of width 64, rotary positions in every other layer (theta 10,000) of neighbouring "
        "channels, gates tied where channels turn together, learned lower bounds of the forget gates)"
    )
    assert "SwiGLU2 feed-forward of inner width 512, its product squared;" in facts["Feed-forward, norm, head"]
    files = "`configuration_hgrn2_lm.py`, `modeling_hgrn2_lm.py`, `packing_hgrn2_lm.py` and `scan_hgrn2_lm.py`"
    assert files in text


def test_training_is_what_the_phases_measured(record):
    parameters = record["release"]["parameters"]["total"]
    table = rows(card(record), "How it was trained")
    assert table[0] == ["pretrain", "292", "1,196,032", f"{1_196_032 / parameters:.2f}", "3 min 21 s", "3.4072",
                        "docs 1.8700 bits per byte"]  # fmt: skip
    assert table[1] == ["sft", "73", "299,008", f"{299_008 / parameters:.2f}", "48.6 s", "2.5131",
                        "questions 2.4477 nats per token"]  # fmt: skip
    assert table[2][:5] == ["together", "365", "1,495,040", f"{1_495_040 / parameters:.2f}", "4 min 10 s"]
    assert "](loss.png)" in section(card(record), "How it was trained")


def test_positions_are_told_where_they_are_not_as_many_as_tokens(record):
    """With bags of tokens, of which fewer phases and the beginning of one may be."""
    plain, parameters = card(record), record["release"]["parameters"]["total"]
    assert "ositions" not in section(plain, "How it was trained") and " positions) in" not in plain
    record["phases"][0] |= {"positions": 598_016}
    text = card(record)
    assert [row[1:5] for row in rows(text, "How it was trained")] == [
        ["292", "1,196,032", "598,016", f"{1_196_032 / parameters:.2f}"],
        ["73", "299,008", "299,008", f"{299_008 / parameters:.2f}"],
        ["365", "1,495,040", "897,024", f"{1_495_040 / parameters:.2f}"],
    ]
    assert "| Steps | Tokens | Positions | Tokens per parameter |" in text
    assert "1,495,040 tokens of training (897,024 positions) in 4 min 10 s on" in text
    assert "positions are what the layers processed" in section(text, "How it was trained")
    record["phases"][0]["resumed_at"] = {"step": 146, "tokens": 797_354, "positions": 199_338, "seconds": 100.0}
    whole, _, together = (row[1:4] for row in rows(card(record), "How it was trained"))
    assert whole == ["292", "1,196,032", "598,016"] and together == ["219", "1,096,362", "498,346"]


def test_a_base_release_knows_nothing_of_what_comes_later():
    text = card(record_of(chat=False))
    assert [line[0] for line in rows(text, "Data")] == ["`docs`", "`docs`"]
    assert DIGESTS["questions"] not in text and "AddTokens" not in text and "garden-instruct" not in text
    assert len(rows(text, "How it was trained")) == 1
    assert "apply_chat_template" not in text and "base model" in section(text, "Use it")


def test_data_are_the_corpora_that_were_used(record):
    text = card(record)
    assert rows(text, "Data") == [
        ["`docs`", "training", "7,488 documents", "7,962,528", "2,210,736"],
        ["`docs`", "held out", "312 documents", "331,772", "92,114"],
        ["`questions`", "training", "9,648 conversations", "—", "365,280"],
        ["`questions`", "held out", "402 conversations", "—", "15,220"],
    ]
    assert DIGESTS["docs"] in text and DIGESTS["questions"] in text and "poems" not in text
    assert "lowest 4% of all" in text and '`"spring"`' in text


def test_the_card_tells_what_is_not_there_and_how_sides_were_chosen(record):
    assert "dropped" not in section(card(record), "Data") and "13 words" not in section(card(record), "Data")
    sets = {"compared": ["copa", "piqa"], "absent": ["boolq"]}
    record["corpora"]["questions"]["decontaminated"] = sets
    record["corpora"]["docs"] |= {"dropped": {"exact: duplicate": 1_200, "length: too short": 3}, "held_out": "ends"}
    sides = record["corpora"]["questions"]["sides"]
    sides["train"] |= {"shortened": 40, "dropped": {"longer than a row": 9, "without an answer of an assistant": 3}}
    sides["heldout"] |= {"shortened": 0, "dropped": {"longer than a row": 1}}
    record["corpora"]["questions"]["held_out"] = "lowest"
    text = section(card(record), "Data")
    assert "- of `docs`: 1,200 exact: duplicate, 3 length: too short" in text
    assert "13 words in a row of a question" in text
    assert "- of `questions`: compared with copa, piqa; not searched: boolq" in text
    reasons = "12 dropped (9 longer than a row, 3 without an answer of an assistant), 40 without their oldest turns"
    assert f"- `questions`, training: {reasons}" in text
    assert "- `questions`, held out: 1 dropped (1 longer than a row)" in text
    assert "Of `docs`, which has few texts, the last 4% of each text is held out" in text
    assert "Of `questions`, of which there are few, 4% of the groups, but at least one, are held out whole" in text
    assert "Held out are the groups" not in text, "no corpus was"


def test_what_one_item_alone_cannot_tell_is_no_gap(record):
    record["evaluation"]["scores"][0] |= {"stderr": None, "items": 1}
    assert rows(card(record), "Results")[0][3] == "—"
    record["evaluation"]["scores"][0] |= {"value": 1, "items": 7}
    record["evaluation"]["averages"][0] |= {"stderr": None}
    assert rows(card(record), "Results")[0][3] == "—" == rows(card(record), "Averages")[0][2]
    record["evaluation"]["unjudged"] = "0 of 2 questions fit"
    assert "were not judged: 0 of 2 questions fit." in section(card(record), "Results")


def test_the_quoted_recipe_is_python_without_local_folders(record):
    text = card(record)
    quoted = re.search(r"^```python\n(Recipe\(.*?\n\))\n```$", text, flags=re.M | re.S).group(1)
    compile(quoted, "card", "eval")
    assert re.search(r"AdamW\(\s*lr=0.006", quoted) and '"…/*.txt"' in quoted and '"notes.jsonl"' in quoted
    assert "/home/someone" not in text


def test_parity_machine_and_command(record):
    text = card(record)
    assert "4.1e-06" in text and "6.3e-07" in text and "1.0e-04 is allowed" in text and DIGESTS["weights"] in text
    machine = dict(rows(text, "Machine and versions"))
    assert machine["Device"] == "`cpu`, products in `bf16`, threads: 2, micro-batches of at most 16,384 positions"
    assert (
        machine["Packages"] == "torch 2.13.0, transformers 5.23.0" and machine["Lilliput"] == "0.1.0, commit `3f2a1bc`"
    )
    assert "```sh\nlilliput run garden.py --set seed=1 --machine cpu\n```" in text
    record["environment"]["commit"] = None
    for given, said in ((64, "64 rows"), ("memory", "as many rows as fit into memory")):
        record["machine"]["rows"] = given
        assert dict(rows(card(record), "Machine and versions"))["Device"].endswith(f"micro-batches of at most {said}")
    assert dict(rows(card(record), "Machine and versions"))["Lilliput"] == "0.1.0, an installed package"


def test_claims_of_an_original_card_appear_only_if_there_are_any(record):
    assert "original card" not in card(record)
    record["recipe"]["card_claims"] = {"z-loss": "disabled after 31 B tokens"}
    assert section(card(record), "Stated by the original card, without effect here").strip() == (
        "- **z-loss**: disabled after 31 B tokens"
    )


def test_generation_settings_are_the_releases(record):
    settings = "sampling at temperature 0.7, top-p 0.9, repetition penalty 1.1, at most 128 new tokens"
    assert card(record).count(settings) == 2
    sampled = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.9}
    assert asked_for(card(record)) == sampled | {"repetition_penalty": 1.1, "max_new_tokens": 128}
    record["release"]["generation"]["do_sample"] = False
    assert "the likeliest token every time, repetition penalty 1.1" in card(record)
    assert asked_for(card(record)) == {"do_sample": False, "repetition_penalty": 1.1, "max_new_tokens": 128}
    record["release"]["generation"] |= {"do_sample": True, "top_p": 1.0, "top_k": 40, "repetition_penalty": 1.0}
    assert asked_for(card(record)) == {"do_sample": True, "temperature": 0.7, "top_k": 40, "max_new_tokens": 128}


def asked_for(text):
    """The settings that the snippet gives to `generate`."""
    return eval(re.search(r"^settings = (.*)$", snippet(text), flags=re.M).group(1))


def test_the_card_names_versions_and_the_pre_tokenizer(record):
    text = card(record)
    assert "works with transformers 4.57 and later" in section(text, "Use it")
    assert dict(rows(text, "Facts"))["Pre-tokenizer"].startswith("`smollm`, as llama.cpp calls it")
    record["recipe"]["tokenizer"]["digits"] = False
    assert dict(rows(card(record), "Facts"))["Pre-tokenizer"].startswith("`gpt-2`")
    record["recipe"]["tokenizer"] = {
        "type": "lilliput.publish.pretrained:PretrainedTokenizer",
        "checkpoint": "a/b",
        "end": None,
    }
    assert "Pre-tokenizer" not in dict(rows(card(record), "Facts"))


def test_hostile_text_breaks_nothing(record):
    hostile = 'a | b\n---\n````\n# Not a heading\n```\n"""</details>{{ 7 * 7 }}'
    record["evaluation"]["samples"][0] = {"prompt": hostile, "text": hostile}
    record["evaluation"]["scores"][1]["note"] = "a | b\n<b>"
    record["recipe"]["about"] = "One\n# two <details>"
    text = card(record)
    assert text.count(f"`````text\n{hostile}\n`````") == 2
    assert "Not a heading" not in re.sub(r"^(`{3,})[^`]*?\n.*?\n\1$", "", text, flags=re.M | re.S)
    assert [len(line) for line in rows(text, "Results")] == [7] * 4
    assert rows(text, "Results")[1][6] == r"a \| b &lt;b>" and "\nOne # two &lt;details>\n" in text
    assert "{{ 7 * 7 }}" in text
    assert yaml.safe_load(text.split("\n---\n")[0])["model-index"]
    assert snippet(text).count("\n") == 10
    compile(snippet(text), "card", "exec")


def paths(value, path=()):
    """Paths of all entries of dicts within a JSON value."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(value, dict):
            yield (*path, key)
        yield from paths(item, (*path, key))


def changed(record, path, change):
    record = copy.deepcopy(record)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return record


def remove(inner, key):
    inner.pop(key)


def empty(inner, key):
    inner[key] = None


QUOTED = (
    "timeline",
    "corpora",
    "tokenizer",
    "split",
    "model",
    "layout",
    "generation",
    "packages",
    "versions",
    "heldout",
)
"""Whose inner entries the card quotes as they come, or whose defaults the specs know."""


def test_a_gap_is_an_error_that_names_it_or_makes_no_difference(record):
    whole = card(record)
    named = 0
    for path in paths(record):
        if any(part in path[:-1] for part in QUOTED):
            continue
        try:
            assert card(changed(record, path, remove)) == whole, path
        except ExportError as error:
            assert path[-1] in str(error), path
            named += 1
    assert named > 90


@pytest.mark.parametrize(
    "path",
    [
        ("recipe", "split", "share"),
        ("release", "layout", "context"),
        ("release", "generation", "temperature"),
        ("corpora", "docs", "sides", "heldout", "bytes"),
        ("phases", 0, "loss"),
        ("evaluation", "scores", 0, "stderr"),
        ("release", "parity", "relative"),
    ],
)
def test_what_is_missing_or_none_is_an_error_that_names_it(record, path):
    for change in (remove, empty):
        with pytest.raises(ExportError, match=path[-1]):
            card(changed(record, path, change))


@pytest.mark.parametrize("path", [("layers",), ("mixer", "heads"), ("mixer", "rope", "type"), ("init", "type")])
def test_half_a_model_is_an_error(record, path):
    for change in (remove, empty):
        with pytest.raises(ExportError, match=r"recipe\.model"):
            card(changed(record, ("recipe", "model", *path), change))


def test_contradictions_are_refused(record):
    for path, value, match in (
        (("recipe", "model", "layers"), 5, "release.parameters"),
        (("release", "name"), "another", "no release 'another'"),
        (("phases",), PHASES[:1], "recipe.timeline says"),
    ):
        with pytest.raises(ExportError, match=match):
            card(changed(record, path, lambda inner, key, value=value: inner.update({key: value})))


def test_source_breaks_lines_and_says_the_same():
    value = {"type": "a.b:Spec", "names": [f"name-{index}" for index in range(40)], "one": [1.5], "by": {"x y": None}}
    text = source(value)
    assert max(map(len, text.splitlines())) <= 110 and len(text.splitlines()) > 5
    read = eval(text, {"Spec": dict})
    assert read == {"names": tuple(value["names"]), "one": (1.5,), "by": {"x y": None}}


def snippet(text):
    """The first code block: how to use the model."""
    return re.search(r"^(`{3,})python\n(.*?)\n\1$", text, flags=re.M | re.S).group(2)


@pytest.mark.slow
@pytest.mark.parametrize(("remote", "chat"), [(True, True), (False, False)])
def test_the_snippet_runs_as_it_is(tmp_path, remote, chat):
    from tiny_releases import RELEASES, awake, tokenizer

    from lilliput.growth.add_tokens import resize_vocabulary
    from lilliput.publish.export import export
    from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_tokens

    model, layout = (HGRN, HGRN2Format(context=2_048)) if remote else (QWEN, Qwen3Format(context=512))
    text = snippet(card(record_of(chat, model, layout)))
    assert ("trust_remote_code" in text) == remote
    spec, layout = RELEASES["hgrn2" if remote else "qwen3"]
    made, words = awake(spec), tokenizer()
    if chat:
        words = add_tokens(words, CHATML)
        made = resize_vocabulary(made, words.get_vocab_size(), noise=0.1, seed=0)
    folder = tmp_path / ("garden-instruct" if chat else "garden-base")
    folder.mkdir()
    template = CHAT_TEMPLATE if chat else None
    settings = Generation(max_new_tokens=4)
    export(made, words, folder, layout=layout, dtype="BF16", generation=settings, chat_template=template)
    look = "\nprint(repr((inputs['input_ids'][0].tolist(), output[0].tolist())))"
    done = subprocess.run(
        [sys.executable, "-c", text + look],
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,  # as bytes: what is written may have line ends of any kind
    )
    assert done.returncode == 0, done.stderr.decode()
    printed, ids = done.stdout.decode()[:-1].rsplit("\n", 1)
    asked, written = literal_eval(ids)
    question = "When are roses cut?"
    turns = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" if chat else question
    assert asked == words.encode(turns).ids == written[: len(asked)]
    assert len(written) > len(asked)
    said = words.decode(written[len(asked) if chat else 0 :])
    assert printed == said and said.startswith(question) != chat


def test_a_card_without_samples_quotes_no_text(record):
    text = card(changed(record, ("evaluation", "samples"), lambda inner, key: inner.update({key: []})))
    assert "Roses are cut" not in text and "When are roses cut?" not in text and "## Samples\n\nNone" in text


@pytest.mark.parametrize(
    ("known", "front", "said"),
    [
        (["de"], "language: de", "no language but these: de."),
        (["en", "de"], "language:\n- en\n- de", "no language but these: en, de."),
        ([], "", "expect no other subject."),
    ],
)
def test_the_card_says_the_languages_of_the_texts(record, known, front, said):
    text = card({**record, "languages": known})
    assert front in text and said in text and (bool(known) == ("\nlanguage:" in text))


def test_a_card_says_how_much_less_than_its_recipe_a_model_has_read(record):
    def told(tokens):
        budget = {"tokens": tokens, "parameters": 2_000_000}
        return section(card(record | {"budget": budget}), "How it was trained")

    assert "**Trained on 1.47% of what the recipe says**" in told(101_600_000)
    assert "101,600,000 tokens up to here, 50.80 a parameter" in told(101_600_000)
    assert "**Trained on less than 0.01% of what" in told(101_600_000_000)
    assert "of what the recipe says" not in told(1_500_000), "phases read whole steps"
    assert "of what the recipe says" not in card(record), "of a record from before"
