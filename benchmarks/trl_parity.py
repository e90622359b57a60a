"""Are the losses of instruction tuning and of DPO those of TRL?

    python benchmarks/trl_parity.py [--chats FILE] [--pairs FILE] [--count 12] [--out FILE.json]

A small Qwen3 and a small HGRN2 with random weights are exported, and opened by transformers. One batch of conversations
is tuned on as TRL's SFTTrainer collates it (`assistant_only_loss`) and as ours are packed into rows; one batch of pairs
as its DPOTrainer does, against a reference of other weights. Losses, the numbers that a DPO step records and gradients
are compared, and token by token the mask of what an assistant says with that of transformers and with TRL's labels.
Without files there are a few conversations with several turns, a system prompt and emoji. All is fp32 on the CPU.

Two things differ by intention, and are taken out: TRL's pairs also learn the line end that the template writes after
an answer's `<|im_end|>`, so it is removed from its tokens; and texts that spell out `<|im_end|>` are tokens of the chat
for transformers, and text for us, so conversations with it are left out. Needs `trl`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from lilliput.base.environment import environment
from lilliput.base.files import write_json, write_text
from lilliput.data.batch import Batch
from lilliput.data.chat_rows import PackedChats, write_chats
from lilliput.data.conversations import Conversation
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.pairs import PairFiles
from lilliput.data.messages import Message
from lilliput.data.pair_rows import REFERENCE, PackedPairs, write_pairs
from lilliput.data.pairs import Pair
from lilliput.data.split import Split
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.block import ScalarGate
from lilliput.nn.ffn import SwiGLU, SwiGLU2
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.rope import RoPE
from lilliput.objectives.answers import answers_of, hidden_states
from lilliput.objectives.dpo import DPO
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.publish.export import Generation, export
from lilliput.publish.hf_formats.hgrn2 import HGRN2Format
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, CHATML, add_chatml, encode_messages
from lilliput.tokenizer.specials import vocabulary_size
from lilliput.train.trainable import Trainable

TOLERANCE, BETA, LENGTH = 1e-4, 0.3, 512
TALKS = [
    [("user", "what is the fox?"), ("assistant", "  quick, and brown\n")],
    [("system", "be kind"), ("user", "and the dog"), ("assistant", "lazy 🙂"), ("user", "why?"), ("assistant", "so")],
    [("user", "two lines\n\nand a third"), ("assistant", "here:\n\n1. one\n2. two")],
    [
        ("user", "a"),
        ("assistant", "the quick brown fox jumps over the lazy dog " * 4),
        ("user", "b"),
        ("assistant", ""),
    ],
]
PAIRS = [
    ("who jumps?", "the quick brown fox", "the lazy dog, all day long"),
    ("be brief", "yes", "it thinks of the cat on the mat, and of the dog, and of the fox"),
    ("is it lazy? 🙂", "the dog is", "no"),
]


class Given:
    """Conversations or pairs in memory, as a corpus."""

    def __init__(self, talks: Sequence[Sequence[Message]] = (), pairs: Sequence[Pair] = ()):
        self._talks, self._pairs = talks, pairs

    def conversations(self) -> list[Conversation]:
        return [Conversation(tuple(talk), str(number), str(number)) for number, talk in enumerate(self._talks)]

    def pairs(self) -> Sequence[Pair]:
        return self._pairs


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--chats")
    arguments.add_argument("--pairs")
    arguments.add_argument("--count", type=int, default=12)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    tokenizer = add_chatml(BPE(vocab=320, at_most=True).train([text for talk in TALKS for _, text in talk] * 20))
    talks, pairs = read(given.chats, given.pairs, given.count, tokenizer)
    found = {}
    for name, (spec, layout) in shapes(vocabulary_size(tokenizer)).items():
        with tempfile.TemporaryDirectory() as work:
            found[name] = compared(Path(work), spec, layout, tokenizer, talks, pairs)
    versions = {name: version(name) for name in ("trl", "transformers", "accelerate", "datasets")}
    result = {"models": found, "conversations": len(talks), "pairs": len(pairs), "versions": versions}
    result |= {"tolerance": TOLERANCE, "environment": environment()}
    print(page := markdown(result))
    if given.out:
        write_json(given.out, result)
        write_text(given.out.with_suffix(".md"), page)
    is_same = all(one["difference"] <= TOLERANCE for each in found.values() for one in each["numbers"].values())
    raise SystemExit(0 if is_same and not any(each["other masks"] for each in found.values()) else 1)


def shapes(vocab: int) -> dict[str, tuple[ModelSpec, Any]]:
    attention = GQA(heads=4, kv_heads=2, head_width=16, qk_norm=True, rope=RoPE(theta=100_000.0))
    recurrent = HGRN2(heads=2, rope=RoPE(layers="even", theta=100_000.0), rope_tie_gate=True, lower_bounds=True)
    qwen3 = ModelSpec(vocab=vocab, width=64, layers=3, mixer=attention, ffn=SwiGLU(inner=96))
    hgrn2 = replace(qwen3, mixer=recurrent, ffn=SwiGLU2(inner=96), gate=ScalarGate(), logit_softcap=20.0)
    return {"qwen3": (qwen3, Qwen3Format(context=LENGTH)), "hgrn2": (hgrn2, HGRN2Format(context=LENGTH))}


def read(chats: str | None, pairs: str | None, count: int, tokenizer: Any) -> tuple[list[list[Message]], list[Pair]]:
    """The conversations and the pairs, those of files that fit a row."""

    def size(messages: Sequence[Message]) -> int:
        return sum(len(ids) for ids, _ in encode_messages(tokenizer, messages))

    def is_plain(messages: Sequence[Message]) -> bool:
        return not any(token in one.content for one in messages for token in CHATML) and size(messages) <= LENGTH

    talks = [[Message(role, text) for role, text in talk] for talk in TALKS]
    chosen = [
        Pair((Message("user", prompt),), *((Message("assistant", one),) for one in both), prompt)
        for prompt, *both in PAIRS
    ]
    if chats:
        every = (list(one.messages) for one in ChatFiles(paths=(chats,)).conversations())
        talks = list(islice(filter(is_plain, every), count))
    if pairs:
        every_pair = PairFiles(paths=(pairs,)).pairs()
        fits = (one for one in every_pair if is_plain([*one.prompt, *one.prompt, *one.chosen, *one.rejected]))
        chosen = list(islice(fits, count))
    return talks, chosen


def compared(
    work: Path, spec: ModelSpec, layout: Any, tokenizer: Any, talks: Sequence[Sequence[Message]], pairs: Sequence[Pair]
) -> dict[str, Any]:
    models, folders = [], []
    for seed in (0, 1):
        models.append(lively(spec, seed))
        folders.append(work / f"model-{seed}")
        folders[-1].mkdir()
        settings = {"dtype": "F32", "generation": Generation(), "chat_template": CHAT_TEMPLATE}
        export(models[-1], tokenizer, folders[-1], layout=layout, **settings)
    theirs = [AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True) for folder in folders]
    fast = AutoTokenizer.from_pretrained(folders[0], trust_remote_code=True)
    numbers, labels = tuned(work, models[0], theirs[0], fast, tokenizer, talks, layout)
    numbers |= preferred(work, models, theirs, fast, tokenizer, pairs, layout)
    masks = [*other_masks(tokenizer, fast, talks), *labels]
    return {"numbers": numbers, "other masks": masks}


def lively(spec: ModelSpec, seed: int) -> LanguageModel:
    """A model whose every parameter does something."""
    model, draw = spec.build(seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def tuned(
    work: Path,
    model: LanguageModel,
    other: Any,
    fast: Any,
    tokenizer: Any,
    talks: Sequence[Sequence[Message]],
    layout: Any,
) -> tuple[dict[str, Any], list[str]]:
    """The losses and gradients of instruction tuning, and the conversations of which TRL learns other tokens."""
    rows = Dataset.from_list(
        [{"messages": [{"role": one.role, "content": one.content} for one in talk]} for talk in talks]
    )
    settings = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "max_length": LENGTH}
    settings |= {"per_device_train_batch_size": len(talks), "output_dir": str(work / "out")}
    arguments = trl.SFTConfig(assistant_only_loss=True, **settings)
    trainer = trl.SFTTrainer(model=other, args=arguments, train_dataset=rows, processing_class=fast)
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model.train(), inputs)
    theirs.backward()
    learned = sorted(row[row != -100].tolist() for row in inputs["labels"])
    ours_learned = sorted(targets_of(tokenizer, talk) for talk in talks)
    write_chats(Given(talks), tokenizer, Split(share=0.0), work / "chats", LENGTH + 1)
    batch = whole(PackedChats(work / "chats"))
    loss, _ = losses_of(NextToken(), model, batch)
    loss.backward()
    numbers = {"SFT loss": pair_of(float(loss), float(theirs))} | gradients(model, trainer.model, layout, "SFT")
    return numbers, [] if learned == ours_learned else ["labels of TRL"]


def preferred(
    work: Path,
    models: Sequence[LanguageModel],
    others: Sequence[Any],
    fast: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    layout: Any,
) -> dict[str, Any]:
    """The losses, numbers and gradients of DPO."""

    def told(messages: Sequence[Message]) -> list[dict[str, str]]:
        return [{"role": one.role, "content": one.content} for one in messages]

    rows = [{"prompt": told(one.prompt), "chosen": told(one.chosen), "rejected": told(one.rejected)} for one in pairs]
    settings = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "max_length": None}
    settings |= {"per_device_train_batch_size": len(pairs), "output_dir": str(work / "out"), "beta": BETA}
    arguments = trl.DPOConfig(disable_dropout=True, **settings)
    trainer = trl.DPOTrainer(
        model=others[0],
        ref_model=others[1],
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=fast,
    )
    others[0].zero_grad()
    encoded = [without_line_end(row, tokenizer.encode("\n").ids) for row in trainer.train_dataset]
    theirs = trainer.compute_loss(trainer.model.train(), trainer.data_collator(encoded))
    theirs.backward()
    told_by_trl = {name: sum(values) / len(values) for name, values in trainer._metrics["train"].items() if values}
    write_pairs(Given(pairs=pairs), tokenizer, Split(share=0.0), work / "pairs", LENGTH + 1)
    packed = PackedPairs(work / "pairs")
    batch = whole(packed)
    with torch.no_grad():
        reference = answers_of(
            models[1], hidden_states(models[1], batch), batch, packed.pairs_per_row
        ).log_probabilities
    models[0].zero_grad()
    loss, terms = losses_of(DPO(beta=BETA), models[0], replace(batch, extras={REFERENCE: reference}))
    loss.backward()
    numbers = {"DPO loss": pair_of(float(loss), float(theirs))}
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
        numbers[f"DPO {name}"] = pair_of(float(terms[name]), float(told_by_trl[name]))
    return numbers | gradients(models[0], trainer.model, layout, "DPO")


def without_line_end(row: dict[str, Any], line_end: list[int]) -> dict[str, Any]:
    """A pair as TRL has encoded it, without what follows the closing tokens of its answers."""
    answers = {name: row[name] for name in ("chosen_ids", "rejected_ids")}
    assert all(ids[-len(line_end) :] == line_end for ids in answers.values()), "the template ends a message with a line"
    return dict(row) | {name: ids[: -len(line_end)] for name, ids in answers.items()}


def losses_of(spec: Any, model: LanguageModel, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    module = Trainable.of_phase(model.train(), [spec], seed=0).objective(0)
    losses = module(batch, spec.denominator(batch), 0, torch.tensor(0.0), Noise("cpu").begin_step(1, 1))
    return losses.loss, losses.terms


def whole(packed: Any) -> Batch:
    return packed.take("train", range(packed.count("train")))


def gradients(model: LanguageModel, other: Any, layout: Any, what: str) -> dict[str, Any]:
    """The largest distance of a parameter's gradients, relative to their norm."""
    theirs, worst = dict(other.named_parameters()), 0.0
    for own, name in layout.names(model.spec).items():
        if name in theirs:
            one, two = model.get_parameter(own).grad, theirs[name].grad
            worst = max(worst, float((one - two).norm() / two.norm().clamp(min=1e-8)))
    return {f"{what} gradients": {"ours": None, "theirs": None, "difference": worst}}


def pair_of(ours: float, theirs: float) -> dict[str, float]:
    return {"ours": ours, "theirs": theirs, "difference": abs(ours - theirs)}


def targets_of(tokenizer: Any, talk: Sequence[Message]) -> list[int]:
    return [
        id
        for ids, mask in encode_messages(tokenizer, talk)
        for id, is_target in zip(ids, mask, strict=True)
        if is_target
    ]


def other_masks(tokenizer: Any, fast: Any, talks: Sequence[Sequence[Message]]) -> list[str]:
    """The conversations whose tokens or mask are not those of transformers' rendering of the template."""
    found = []
    for number, talk in enumerate(talks):
        told = [{"role": one.role, "content": one.content} for one in talk]
        marked = fast.apply_chat_template(told, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        encoded = encode_messages(tokenizer, talk)
        ids = [id for part, _ in encoded for id in part]
        mask = [weight for _, part in encoded for weight in part]
        if (ids, mask) != (list(marked["input_ids"]), list(marked["assistant_masks"])):
            found.append(f"conversation {number}")
    return found


def markdown(result: dict[str, Any]) -> str:
    lines = ["# Losses beside those of TRL (`benchmarks/trl_parity.py`)", ""]
    versions = ", ".join(f"{name} {one}" for name, one in result["versions"].items())
    lines += [f"{versions}; {result['conversations']} conversations, {result['pairs']} pairs", ""]
    lines += ["| model | number | Lilliput | TRL | difference |", "|---|---|--:|--:|--:|"]
    for model, each in result["models"].items():
        for name, one in each["numbers"].items():
            cells = ["" if one[key] is None else f"{one[key]:.6f}" for key in ("ours", "theirs")]
            lines.append(f"| {model} | {name} | {' | '.join(cells)} | {one['difference']:.1e} |")
        lines.append(f"| {model} | conversations with another mask | {len(each['other masks'])} | | |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
