"""HGRN2 in ggml's operations, as docs/hgrn2-in-ggml.md maps it, computes what our model does.

Operations are written here as ggml specifies them, on the numbers in the order in which they lie in memory. ggml names
the axis that runs fastest first: its [S, H, T] is [T, H, S] here.
"""

from dataclasses import replace
from math import tanh

import numpy as np
import pytest
import torch
from tiny_releases import HGRN, OTHERWISE, VOCAB, awake, rows

from lilliput.nn.rope import RoPE

F32 = np.float32


def gated_linear_attn(k, v, q, g, state, scale):
    """ggml_gated_linear_attn: k, v, q, g [T, H, S] of all sequences, one after the other, and state [sequence, H S S].

    The result is one tensor: T rows of H S outputs, then the states. A state holds S[i][j] at i S + j, where i is a key
    channel and j one of the value.
    """
    tokens, heads, size = k.shape
    sequences = len(state)
    made, after = np.zeros((tokens, heads, size), F32), state.reshape(sequences, heads, size, size).copy()
    for t in range(tokens):
        of_sequence = after[t // (tokens // sequences)]
        for head in range(heads):
            for i in range(size):
                of_sequence[head, i] = of_sequence[head, i] * g[t, head, i] + v[t, head] * k[t, head, i]
                made[t, head] += of_sequence[head, i] * (q[t, head, i] * F32(scale))
    return np.concatenate([made.reshape(-1), after.reshape(-1)])


def rope(x, positions, base, neox):
    """ggml_rope of [T, H, S]: neighboring channels turn together, or those S / 2 apart (NEOX)."""
    half = x.shape[-1] // 2
    angle = positions[:, None].astype(np.float64) * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None].astype(F32), np.sin(angle)[:, None].astype(F32)
    one, two = (slice(0, half), slice(half, None)) if neox else (slice(0, None, 2), slice(1, None, 2))
    turned = np.empty_like(x)
    turned[..., one] = x[..., one] * cos - x[..., two] * sin
    turned[..., two] = x[..., two] * cos + x[..., one] * sin
    return turned


def rms_norm(x, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + F32(eps))


def sigmoid(x):
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(F32)


def silu(x):
    return x * sigmoid(x)


def stored(model):
    """Tensors that a file would hold: gains whole, gates after their sigmoid, bounds after their running sum."""
    spec, weights = model.spec, {name: weight.detach().numpy() for name, weight in model.state_dict().items()}
    offsets = {"norm": spec.norm, "mixer_norm": spec.norm, "ffn_norm": spec.norm, "mixer.norm": spec.mixer.output_norm}
    with torch.no_grad():
        bounds = model.shared().numpy() if model.shared is not None else np.zeros((spec.layers, spec.width), F32)
    layers = []
    for layer in range(spec.layers):
        prefix = f"layers.{layer}."
        own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
        for name in ("mixer_norm", "ffn_norm", "mixer.norm"):
            own[f"{name}.weight"] = own[f"{name}.weight"] + F32(type(offsets[name]).__name__ == "ZeroCenteredRMSNorm")
        gates = {name: sigmoid(own[f"{name}.logit"]) if f"{name}.logit" in own else F32(1) for name in
                 ("mixer_gate", "ffn_gate")}  # fmt: skip
        layers.append(own | gates | {"bound": bounds[layer]})
    final = weights["norm.weight"] + F32(type(spec.norm).__name__ == "ZeroCenteredRMSNorm")
    return {"embedding": weights["embedding.weight"], "norm": final, "layers": layers}


def mean_of_pairs(x, neox):
    """Both channels of a rotated pair at their mean: views, additions and concatenations in ggml."""
    shape = (*x.shape[:-1], 2, -1) if neox else (*x.shape[:-1], -1, 2)
    axis = -2 if neox else -1
    paired = x.reshape(shape)
    return np.broadcast_to(paired.mean(axis, keepdims=True, dtype=F32), paired.shape).reshape(x.shape)


def mixer(x, layer, own, spec, positions, state):
    """The graph of a layer's mixer: x [T, D] of all sequences -> what is added to the stream, and the states."""
    heads, turn = spec.mixer.heads, spec.mixer.rope
    by_head = (len(x), heads, spec.width // heads)
    q = silu(x @ own["mixer.query.weight"].T).reshape(by_head)
    z = (x @ own["mixer.forget.weight"].T + own.get("mixer.forget_bias.weight", F32(0))).reshape(by_head)
    v = (x @ own["mixer.input.weight"].T).reshape(by_head)
    bound, neox = own["bound"].reshape(by_head[1:]), turn.layout == "half"
    if spec.mixer.rope_tie_gate and turn.applies(layer):
        z, bound = mean_of_pairs(z, neox), mean_of_pairs(bound, neox)
    f, k = bound + (1 - bound) * sigmoid(z), (1 - bound) * sigmoid(-z)
    if isinstance(turn, RoPE) and turn.applies(layer):
        q, k = rope(q, positions, turn.theta, neox), rope(k, positions, turn.theta, neox)
    made = gated_linear_attn(k, v, q, f, state, by_head[-1] ** -0.5)
    mixed, after = made[: x.size].reshape(x.shape), made[x.size :].reshape(state.shape)
    normed = rms_norm(mixed, spec.mixer.output_norm.eps) * own["mixer.norm.weight"]
    return normed @ own["mixer.output.weight"].T, after


def ffn(x, own, spec):
    gate, up = x @ own["ffn.gate.weight"].T, x @ own["ffn.up.weight"].T
    made = {"silu": lambda: silu(gate) ** 2 * up, "product": lambda: (silu(gate) * up) ** 2}[spec.ffn.square]()
    return made @ own["ffn.down.weight"].T


def graph(tensors, spec, tokens, positions, states):
    """The whole model: ids and positions [T] of all sequences -> logits [T, V]; states are changed."""
    x = tensors["embedding"][tokens]
    for layer, own in enumerate(tensors["layers"]):
        normed = rms_norm(x, spec.norm.eps) * own["mixer_norm.weight"]
        made, states[layer] = mixer(normed, layer, own, spec, positions, states[layer])
        x = x + own["mixer_gate"] * made
        x = x + own["ffn_gate"] * ffn(rms_norm(x, spec.norm.eps) * own["ffn_norm.weight"], own, spec)
    logits = (rms_norm(x, spec.norm.eps) * tensors["norm"]) @ tensors["embedding"].T
    cap = spec.logit_softcap
    return logits if cap is None else np.vectorize(tanh)(logits / cap).astype(F32) * F32(cap)


def empty(spec, sequences):
    return [np.zeros((sequences, spec.width * spec.width // spec.mixer.heads), F32) for _ in range(spec.layers)]


SPECS = {
    "plain": replace(HGRN, mixer=replace(HGRN.mixer, rope=RoPE())),
    "every other layer turns": HGRN,
    "ties, bounds, a bias, neighbors and a cap": OTHERWISE,
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_ggmls_operations_compute_the_model(spec):
    model, tokens = awake(spec), rows(2, 11)
    with torch.no_grad():
        expected = model(tokens).numpy()
    tensors, states = stored(model), empty(spec, 2)
    assert len(tensors["embedding"]) == VOCAB
    found = graph(tensors, spec, tokens.numpy().reshape(-1), np.tile(np.arange(11), 2), states)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_states_of_ggml_are_ours_and_carry_a_text_on():
    spec = HGRN
    model, tokens = awake(spec), rows(1, 9)
    tensors, states = stored(model), empty(spec, 1)
    parts = [
        graph(tensors, spec, tokens[0, first:last].numpy(), np.arange(first, last), states)
        for first, last in ((0, 6), (6, 7), (7, 9))
    ]
    ours = model.empty_states(1, 16)
    with torch.no_grad():
        expected = model(tokens)[0].numpy()
        zero, length = torch.zeros(1, dtype=torch.long), torch.full((1,), 9)
        model.decode(model.embed(tokens[..., None]), ours, zero, length)
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    for state, own in zip(states, ours, strict=True):
        np.testing.assert_allclose(state.reshape(-1), own["recurrent_state"].numpy().reshape(-1), rtol=0, atol=2e-5)
