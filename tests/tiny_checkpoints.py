"""Small Hugging Face checkpoints as others publish them: real models of transformers, real tokenizers of tokenizers."""

import json
from functools import cache
from pathlib import Path

import tiny
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PADDING = 12
"""Rows of the embedding that no token uses."""
TEMPLATE = "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}"


@cache
def byte_level() -> Tokenizer:
    """As GPT-2's, but its end token is the last one, and it has a pad token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(map(tiny.sentences, range(50)), trainer)
    tokenizer.add_special_tokens(["<|pad|>", "<|stop|>"])
    return tokenizer


@cache
def metaspace() -> Tokenizer:
    """As SentencePiece makes them: blanks are letters, unknown characters are bytes, and a text begins with `<s>`."""
    reserved = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=reserved, show_progress=False)
    tokenizer.train_from_iterator(map(tiny.sentences, range(50)), trainer)
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]  # bytes are tokens like any other
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


TOKENIZERS = {
    "byte-level": (byte_level, {"eos_token": "<|stop|>", "pad_token": "<|pad|>"}),
    "metaspace": (metaspace, {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}),
}
KINDS = {"qwen3": "byte-level", "llama": "metaspace"}


def save_checkpoint(
    folder: Path,
    kind: str,
    *,
    dtype: torch.dtype = torch.float32,
    shards: str = "1GB",
    tokens: str | None = None,
    **config,
):
    """A checkpoint in a folder, saved by transformers; returns its model, of which every weight matters."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    configs = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
    build, named = TOKENIZERS[tokens or KINDS[kind]]
    tokenizer = build()
    settings = {
        "vocab_size": tokenizer.get_vocab_size() + PADDING,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16 if kind == "qwen3" else 8,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": kind == "qwen3",
        "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0},
        "eos_token_id": tokenizer.token_to_id(named["eos_token"]),
        "bos_token_id": tokenizer.token_to_id(named["bos_token"]) if "bos_token" in named else None,
    }
    torch.manual_seed(5)
    configuration, architecture = configs[kind]
    model = architecture(configuration(**settings | config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * (0.3 if parameter.dim() < 2 else 0.1))
    model.to(dtype).save_pretrained(folder, max_shard_size=shards)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return architecture.from_pretrained(folder, dtype=torch.float32).eval()


def change(file: Path, **entries) -> None:
    """Change entries of a JSON file; None removes one."""
    plain = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({key: value for key, value in plain.items() if value is not None}))
