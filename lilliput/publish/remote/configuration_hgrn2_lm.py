"""The configuration of an HGRN2 language model (arXiv 2404.07904) for transformers, from 4.57 on."""

from transformers import PretrainedConfig  # transformers 5 writes it PreTrainedConfig, and knows both names
from transformers.utils.versions import require_version

require_version("transformers>=4.57", "The code of this model needs it: pip install -U transformers")


class HGRN2LMConfig(PretrainedConfig):
    """The shape of an HGRN2 language model.

    Args:
        vocab_size: number of token ids.
        hidden_size: width of the residual stream; `num_heads` divides it.
        num_hidden_layers: layers, each a recurrence and a feed-forward layer.
        num_heads: heads of the recurrence; a row's state is hidden_size^2 / num_heads numbers a layer.
        intermediate_size: inner width of the feed-forward layers.
        ffn: "swiglu", down(silu(gate) * up); "swiglu2", down(silu(gate)^2 * up); "swiglu2_product",
            down((silu(gate) * up)^2); or "reglu2", down(relu(gate)^2 * up).
        norm_eps: of the layer norms and the final norm.
        norm_offset: 0 or 1; the gain of those norms is offset + weight.
        output_norm_eps: of the norm between recurrence and output projection.
        output_norm_offset: its offset.
        gate: "none", or "scalar": each branch times the sigmoid of one number before it joins the stream.
        forget_bias: whether forget gates have a bias.
        lower_bounds: whether forget gates have learned lower bounds that rise from layer to layer.
        logit_cap: bound of the logits, c tanh(z / c); None leaves them as they are.
        rope_theta: base of the rotation of queries and keys.
        rope_layers: which layers rotate: "none", "even" (0, 2, ...) or "all".
        rope_pairs: which channels of a head turn together: "half", j with j + K/2, or "interleaved", 2j with 2j + 1.
        rope_tie_gate: whether channels that turn together forget alike.
        max_position_embeddings: tokens the model was trained to read at once; not a limit.
        initializer_range: standard deviation of fresh matrices.
        use_cache: whether the state is returned when the model is not in training.
        tie_word_embeddings: whether the head is the embedding.
        pad_token_id, bos_token_id, eos_token_id: ids of the special tokens.
    """

    model_type = "hgrn2_lm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (the Trainer adds a list to it)
    # Losses that compute logits by themselves, such as TRL's, look for the bound under the name of Gemma.
    attribute_map = {"final_logit_softcapping": "logit_cap"}  # noqa: RUF012 (transformers reads a plain dict)

    def __init__(
        self,
        vocab_size: int = 32_768,
        hidden_size: int = 768,
        num_hidden_layers: int = 16,
        num_heads: int = 6,
        intermediate_size: int = 2_048,
        ffn: str = "swiglu",
        norm_eps: float = 1e-6,
        norm_offset: int = 0,
        output_norm_eps: float = 1e-6,
        output_norm_offset: int = 0,
        gate: str = "none",
        forget_bias: bool = False,
        lower_bounds: bool = False,
        logit_cap: float | None = None,
        rope_theta: float = 10_000.0,
        rope_layers: str = "none",
        rope_pairs: str = "half",
        rope_tie_gate: bool = False,
        max_position_embeddings: int = 2_048,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        tie_word_embeddings: bool = True,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        **kwargs,
    ):
        for name, value, known in (
            ("ffn", ffn, ("swiglu", "swiglu2", "swiglu2_product", "reglu2")),
            ("norm_offset", norm_offset, (0, 1)),
            ("output_norm_offset", output_norm_offset, (0, 1)),
            ("gate", gate, ("none", "scalar")),
            ("rope_layers", rope_layers, ("none", "even", "all")),
            ("rope_pairs", rope_pairs, ("half", "interleaved")),
        ):
            if value not in known:
                raise ValueError(f"{name} is one of {known}, not {value!r}")
        if hidden_size % num_heads:
            raise ValueError(f"a hidden_size of {hidden_size} cannot be split into {num_heads} heads")
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_heads = num_heads
        self.intermediate_size = intermediate_size
        self.ffn = ffn
        self.norm_eps = norm_eps
        self.norm_offset = norm_offset
        self.output_norm_eps = output_norm_eps
        self.output_norm_offset = output_norm_offset
        self.gate = gate
        self.forget_bias = forget_bias
        self.lower_bounds = lower_bounds
        self.logit_cap = logit_cap
        self.rope_theta = rope_theta
        self.rope_layers = rope_layers
        self.rope_pairs = rope_pairs
        self.rope_tie_gate = rope_tie_gate
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        super().__init__(
            tie_word_embeddings=tie_word_embeddings,
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            **kwargs,
        )


__all__ = ["HGRN2LMConfig"]
