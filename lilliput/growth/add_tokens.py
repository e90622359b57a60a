"""New tokens for a trained model: the vocabulary grows, nothing learned is lost."""

from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer

from lilliput.base.errors import RecipeError
from lilliput.growth.growth import Growth, Lineage
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.init import fill_normal
from lilliput.tokenizer.chatml import add_tokens
from lilliput.tokenizer.specials import vocabulary_size


@dataclass(frozen=True, kw_only=True)
class AddTokens(Growth):
    """Add special tokens after the last id.

    A new row is the mean of the old ones plus noise, a tenth of their spread: equal rows would stay equal for ever.
    """

    tokens: tuple[str, ...]
    noise: float = 0.1

    def shape(self, spec: ModelSpec) -> ModelSpec:
        return replace(spec, vocab=spec.vocab + len(self.tokens))

    def retokenize(self, tokenizer: Tokenizer) -> Tokenizer:
        if all(tokenizer.token_to_id(token) is not None for token in self.tokens):
            raise RecipeError(
                f"the tokenizer has {', '.join(self.tokens)} already",
                where="AddTokens(tokens=...)",
                hint="leave AddTokens out of the timeline",
            )
        return add_tokens(tokenizer, self.tokens)

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        tokenizer = self.retokenize(lineage.tokenizer)
        vocab, known = self.shape(lineage.model.spec).vocab, vocabulary_size(lineage.tokenizer)
        model = resize_vocabulary(lineage.model, vocab, noise=self.noise, seed=seed, known=known)
        return replace(lineage, model=model, tokenizer=tokenizer, average={})


def resize_vocabulary(
    model: LanguageModel, vocab: int, *, noise: float, seed: int, known: int | None = None
) -> LanguageModel:
    """A model with a longer embedding (and head); old rows and all other weights are copied.

    Args:
        model: what to grow.
        vocab: rows of the new embedding.
        noise: spread of the new rows around the mean of the known ones, in standard deviations of those.
        seed: decides the noise.
        known: rows that the tokenizer uses; None for all. Those behind are padding, and stay behind the new ones.
    """
    grown = replace(model.spec, vocab=vocab).skeleton().to_empty(device=next(model.parameters()).device)
    old = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in grown.named_parameters():
            if parameter.shape == old[name].shape:
                parameter.copy_(old[name])
                continue
            rows, padding = old[name][:known], old[name].shape[0] - (known or old[name].shape[0])
            fresh = torch.empty(vocab - old[name].shape[0], parameter.shape[1])
            fill_normal(fresh, noise * float(rows.std()), f"{seed}/{name}/{vocab}")
            parameter[: len(rows)] = rows
            parameter[len(rows) : vocab - padding] = rows.mean(dim=0) + fresh.to(parameter.device)
            parameter[vocab - padding :] = old[name][len(rows) :]
    return grown
