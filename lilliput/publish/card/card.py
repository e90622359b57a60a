"""The model card: a README.md for the Hugging Face Hub that says what the record of a run says, and nothing else.

The sentences are in `card.md.jinja`; every figure in them is read or computed from the record.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import jinja2

from lilliput.base.spec import to_plain
from lilliput.base.text_units import size
from lilliput.data.corpora.stand_in import StandIn
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.license_terms import license_names
from lilliput.data.lost_conversations import in_words, lost
from lilliput.data.replies.asking import ANSWERS
from lilliput.model import ModelSpec
from lilliput.publish.card.contaminated import contaminated
from lilliput.publish.card.markdown import NOTHING, cell, code, fenced, literal, prose, source
from lilliput.publish.card.notes import CardNotes
from lilliput.publish.card.peers import peers
from lilliput.publish.card.record import Part, Timeline, refusal
from lilliput.publish.card.reproduce import PRIVATE, reproduce_command
from lilliput.publish.card.training import course, training

TEMPLATE = "card.md.jinja"
METRIC_TYPES = {"acc": "accuracy", "acc_norm": "accuracy"}
"""Names of metrics on the Hub where they are not the harness's."""
LICENSE = "unknown"
"""The Hub's name for a license that is not given."""
ROPES = {
    "none": "no rotary positions",
    "even": "rotary positions in every other layer (theta {:,.0f})",
    "all": "rotary positions (theta {:,.0f})",
}
SQUARES = {"silu": "", "product": ", its product squared", "relu": ", with a squared ReLU"}
"""Details that the name SwiGLU2 leaves open, if they are not the usual ones."""
OLDEST_TRANSFORMERS = "4.57"
"""The first version that releases work with: benchmarks/transformers_versions.py."""
SIDES = {"train": "training", "heldout": "held out"}


def card(record: dict[str, Any]) -> str:
    """The model card of a release.

    Args:
        record: JSON values alone: `release` (as the recipe writes it, with `sha256`, `bytes`, `parameters` and
            `parity`), `recipe`, `command` (that it comes from, or None), `machine`, `made_with`, `changes` (of these
            two), `environment`, `corpora`, `phases`, `languages` of the texts, and `evaluation` with `scores`,
            `samples` (empty where the card prints none), `baselines` and `versions`.

    Returns:
        Markdown with YAML front matter.

    Raises:
        ExportError: the record lacks something, or contradicts itself.
        RecipeError: a spec in it is of a type that is not installed.
    """
    run = Part(record)
    timeline = Timeline(run)
    shape, layout = timeline.shape(), run["release"]["layout"].spec()
    try:
        config = layout.config(shape)
    except AttributeError as error:
        raise refusal(f"recipe.model is incomplete: {error}") from error
    recipe, trained = run["recipe"], training(run, timeline)
    notes = recipe["notes"].spec() if "notes" in recipe else CardNotes()
    license_named = recipe.plain.get("license")
    return _render(
        front_matter=_front_matter(run, config["model_type"], license_named or LICENSE, notes),
        license=license_named,
        terms=run.plain.get("terms") or {"disagreements": [], "unnamed": []},
        release=run["release"],
        recipe=recipe,
        shape=shape,
        is_chat=run["release"].optional("chat") is not None,
        facts=_facts(run, shape),
        start=recipe["model"].plain.get("checkpoint"),
        architecture=config["architectures"][0],
        gguf=run["release"].plain.get("gguf", []),
        int8=run["release"].plain.get("int8", []),
        remote_files=[path.name for path in layout.remote_files],
        state=_state(shape),
        scores=[_score(score) for score in run["evaluation"]["scores"]],
        absent=run["evaluation"].plain.get("absent", {}),
        averages=[_average(average) for average in run["evaluation"]["averages"]],
        at_chance=_at_chance(run),
        evaluation=run["evaluation"],
        unjudged=run["evaluation"].plain.get("unjudged"),
        model_code=run["evaluation"].plain.get("model_code"),
        contamination=contaminated(run["evaluation"]),
        comparison=_comparison(run),
        training=trained,
        peers=peers(run, trained["together"]["tokens"]),
        notes=notes,
        course=course(run),
        data=_data(run, timeline.corpora()),
        machine=run["machine"],
        micro_batch=_micro_batch(run["machine"]),
        environment=run["environment"],
        generation=_generation(run["release"]["generation"]),
        arguments=_arguments(run["release"]["generation"]),
        oldest_transformers=OLDEST_TRANSFORMERS,
        samples=[(sample["prompt"], sample["text"]) for sample in run["evaluation"].optional("samples")],
        languages=run.optional("languages"),
        claims=dict(recipe["card_claims"].items()),
        quoted=source(timeline.recipe()),
        again=reproduce_command(run.optional("command")),
    )


def _render(**view: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "code": code, "fenced": fenced, "literal": literal, "prose": prose}
    environment.filters |= {"count": "{:,}".format, "shell": shlex.quote, "size": size}
    try:
        return environment.get_template(TEMPLATE).render(view)
    except jinja2.UndefinedError as error:
        raise refusal(f"the card asks for what the record lacks: {error}") from error


def _front_matter(run: Part, model_type: str, license_identifier: str, notes: CardNotes) -> str:
    """Metadata for the Hub, written by its own library: https://huggingface.co/docs/hub/model-cards."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=_slug(score["task"]),
            dataset_name=score["task"],
            metric_type=METRIC_TYPES.get(score["metric"], _slug(score["metric"])),
            metric_name=score["metric"],
            metric_value=score["value"],
        )
        for score in run["evaluation"]["scores"]
    ]
    known = run.optional("languages")
    return ModelCardData(
        language=known[0] if len(known) == 1 else known or None,
        license=license_identifier,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(dict.fromkeys(("lilliput", "small-language-model", model_type, *notes.tags))),
        metrics=list(notes.metrics) or None,
        model_name=run["release"]["name"],
        eval_results=results,
    ).to_yaml()


def _facts(run: Part, shape: ModelSpec) -> dict[str, str]:
    model = Part(to_plain(shape), "recipe.model")
    gated = "" if model["gate"].kind == "Ungated" else f", branches behind a {model['gate'].kind}"
    return {
        "short": _short(run["release"]["parameters"]["total"]),
        "mixer": _mixer(model["mixer"], shape.width),
        "ffn": _ffn(model["ffn"]),
        "norm": model["norm"].kind + gated,
        "head": _head(model),
        "pre_tokenizer": getattr(run["recipe"]["tokenizer"].spec(), "pre_tokenizer", ""),
    }


def _mixer(mixer: Part, width: int) -> str:
    """A mixer in words; one that has none here as its recipe writes it."""
    if mixer.kind not in ("HGRN2", "GQA"):
        return source(mixer.plain, width=float("inf"))
    rope = ROPES[mixer["rope"].plain.get("layers", "none")].format(mixer["rope"]["theta"])
    if mixer["rope"].plain.get("layout") == "interleaved":
        rope += " of neighbouring channels"
    if mixer.kind == "HGRN2":
        gates = ", gates tied where channels turn together" if mixer["rope_tie_gate"] else ""
        gates += ", learned lower bounds of the forget gates" if mixer["lower_bounds"] else ""
        return f"HGRN2 recurrence ({mixer['heads']} heads of width {width // mixer['heads']}, {rope}{gates})"
    norm = "QK-norm, " if mixer["qk_norm"] else ""
    heads = f"{mixer['heads']} query heads, {mixer['kv_heads']} key-value heads, width {mixer['head_width']}"
    return f"grouped-query attention ({heads}, {norm}{rope})"


def _ffn(ffn: Part) -> str:
    square = SQUARES[ffn["square"]] if ffn.kind == "SwiGLU2" else ""
    return f"{ffn.kind} feed-forward of inner width {ffn['inner']:,}{square}"


def _head(model: Part) -> str:
    cap = model.optional("logit_softcap")
    capped = "" if cap is None else f", its logits bent below {cap:g} (soft-cap)"
    return ("tied to the embedding" if model["tie_embeddings"] else "a matrix of its own") + capped


def _state(shape: ModelSpec) -> dict[str, Any]:
    """Memory of a text in progress: numbers for each of its tokens, or a state of one size in fp32."""
    first, second = (shape.state_entries(length) for length in (1, 2))
    grows = second > first
    return {"grows": grows, "entries": second - first if grows else first}


def _score(score: Part) -> dict[str, str]:
    chance = score.optional("chance")
    is_alike = score["items"] == 1 or score["value"] in (0, 1)  # so that the items tell no standard error
    stderr = score.optional("stderr") if is_alike else score["stderr"]
    # Whatever is better the higher it is and lies in [0, 1] is a share, and reads best in percent.
    form = ".1%" if score["higher_is_better"] and 0 <= score["value"] <= 1 else ".4f"
    return {
        "task": score["task"],
        "metric": score["metric"],
        "better": "↑" if score["higher_is_better"] else "↓",
        "value": f"{score['value']:{form}}",
        "stderr": NOTHING if stderr is None else f"{stderr:{form}}",
        "chance": NOTHING if chance is None else f"{chance:{form}}",
        "count": f"{score['items']:,}",  # not "items", which Jinja would take for the method of a dict
        "note": score["note"],
    }


def _average(average: Part) -> dict[str, str]:
    shares = {key: average.optional(key) for key in ("value", "stderr")}
    shown = {key: NOTHING if share is None else f"{100 * share:.2f}" for key, share in shares.items()}
    return shown | {"name": average["name"], "formula": average["formula"]}


def _at_chance(run: Part) -> list[str]:
    """Benchmarks at which the model is no better than chance, as the notes of the scores say."""
    scores = run["evaluation"]["scores"]
    return [f"{score['task']} ({score['metric']})" for score in scores if "chance" in score["note"]]


def _comparison(run: Part) -> dict[str, Any] | None:
    """Held-out bits per byte of this model and of what anybody has, the best first; None where it was not measured."""
    values = {score["metric"]: score["value"] for score in run["evaluation"]["scores"]}
    if "bits_per_byte" not in values:
        return None
    rows = {"model": values["bits_per_byte"]}
    rows |= {name: run["evaluation"]["baselines"][name] for name in ("unigram", "xz", "xz_given_train")}
    factor, order = rows["model"] / rows["xz_given_train"], sorted(rows, key=rows.__getitem__)
    percent = f"{abs(factor - 1):.1%} {'more' if factor > 1 else 'fewer'} bits than"
    return {
        "rows": [(name, f"{rows[name]:.4f}") for name in order],
        "needs": percent if factor < 2 else f"{factor:.1f} times the bits of",
        "beaten_by": order[: order.index("model")],
        "heldout": run["corpora"][run["release"]["heldout"]]["sides"]["heldout"],
    }


def _data(run: Part, names: list[str]) -> dict[str, Any]:
    recipe, split = run["recipe"], run["recipe"]["split"]
    corpora = {name: run["corpora"][name] for name in names}
    ways = {name: corpus.plain.get("held_out") for name, corpus in corpora.items()}  # None: by the hash of every group
    sides, lacking = [], []
    for name, corpus in corpora.items():
        for key, shown in SIDES.items():
            side = corpus["sides"][key]
            if counts := lost(side.plain):
                lacking.append((name, shown, in_words(counts)))
            unit = next((kind for kind in ("conversations", "pairs") if kind in side), "documents")
            text_bytes = f"{side['bytes']:,}" if unit == "documents" else NOTHING
            sides.append((name, shown, f"{side[unit]:,} {unit}", text_bytes, f"{side['tokens']:,}"))
    teachers = {name: recipe["corpora"][name] for name in names if recipe["corpora"][name].kind == Teacher.__name__}
    return {
        "sides": sides,
        "texts": [(name, recipe["corpora"][name].kind, corpus["text_sha256"]) for name, corpus in corpora.items()],
        "by_hash": [name for name in names if ways[name] in (None, "large")],
        **{way: [name for name in names if ways[name] == way] for way in ("large", "ends", "lowest")},
        "filtered": [(name, _reasons(dropped)) for name in names if (dropped := corpora[name].plain.get("dropped"))],
        "decontaminated": [
            (name, ", ".join(sets["compared"]), ", ".join(sets["absent"]))
            for name in names
            if (sets := corpora[name].plain.get("decontaminated"))
        ],
        "stand_ins": [
            (name, recipe["corpora"][name]["missing"])
            for name in names
            if recipe["corpora"][name].kind == StandIn.__name__
        ]
        + [(name, f"replies of {one['model']}") for name, one in teachers.items() if one.plain.get("stand_in")],
        "teachers": [(name, _replies(one)) for name, one in teachers.items()],
        "lost": lacking,
        "passes": [(name, f"{value:,.2f}") for name, value in (run.plain.get("passes") or {}).items() if value],
        "licenses": [
            (name, ", ".join(found)) for name in names if (found := license_names(recipe["corpora"][name].plain))
        ],
        "share": f"{100 * split['share']:.3g}%",
        "salt": split["salt"],
        "tokenizer": recipe["tokenizer"].kind,
        "tokenizer_of": recipe["tokenizer"].plain.get("checkpoint"),
        "tokenizer_corpora": recipe["tokenizer_corpora"],
    }


def _replies(teacher: Part) -> str:
    """A teacher's replies in words."""
    if teacher.plain.get("stand_in") == ANSWERS:
        return "the answers that the prompts have in their own corpus, to rehearse with"
    how = "the likeliest tokens" if teacher["temperature"] == 0 else f"temperature {teacher['temperature']:g}"
    asked = teacher.plain.get("stand_in") or teacher["model"]
    is_private = PRIVATE.match(asked) or asked.count("/") != 1
    name = Path(asked).name if is_private else asked
    return f"replies of {name} to prompts of another corpus, at {how}"


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())


def _micro_batch(machine: Part) -> str:
    rows, positions = machine["rows"], machine["positions"]
    if rows == "memory":
        return "as many rows as fit into memory"
    return f"{positions:,} positions" if rows == "auto" else f"{rows:,} rows"


def _generation(settings: Part) -> str:
    """Default generation settings of the release."""
    words = ["the likeliest token every time"]
    if settings["do_sample"]:
        words = [f"sampling at temperature {settings['temperature']:g}"]
        words += [f"top-p {settings['top_p']:g}"] if settings["top_p"] < 1 else []
        words += [f"top-k {settings['top_k']:,}"] if settings["top_k"] else []
    if settings["repetition_penalty"] != 1:
        words.append(f"repetition penalty {settings['repetition_penalty']:g}")
    return ", ".join([*words, f"at most {settings['max_new_tokens']:,} new tokens"])


def _arguments(settings: Part) -> str:
    """The same as arguments of transformers' `generate`."""
    words = ["do_sample=False"]
    if settings["do_sample"]:
        # transformers takes the 50 likeliest tokens where nothing is said.
        words = ["do_sample=True", f"temperature={settings['temperature']:g}", f"top_k={settings['top_k']:d}"]
        words += [f"top_p={settings['top_p']:g}"] if settings["top_p"] < 1 else []
    if settings["repetition_penalty"] != 1:
        words.append(f"repetition_penalty={settings['repetition_penalty']:g}")
    return ", ".join([*words, f"max_new_tokens={settings['max_new_tokens']:d}"])


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def _short(count: int) -> str:
    for step, unit in ((1e9, "B"), (1e6, "M")):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count:,}"
