"""Text from denoising blocks, while they are no ordinary model yet: each new token is denoised block by block.

A token begins as noise of the largest level and goes down the levels in Euler's steps, each made by the block whose
range the level is in. The text before it is read by the block's own layers, at that level too, so that there is a
state for each step. Cross-entropy through a norm teaches the direction of D(z) and not its length; so a step goes to
the mean embedding under the probabilities of the tokens, which is what D(z) estimates.

Shapes: B rows, L positions, D width, V vocabulary.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.nn.block import stream_precision
from lilliput.nn.mixer import State
from lilliput.nn.modulation import LayerModulation
from lilliput.objectives.noise import Noise
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocksModule
from lilliput.objectives.routes.preconditioning import euler_step


@torch.no_grad()
def sample(
    route: DiffusionBlocksModule,
    tokens: Tensor,
    count: int,
    noise: Noise,
    *,
    steps: int | None = None,
    temperature: float = 0.0,
) -> Tensor:
    """Return rows of text [B, L] and `count` tokens more, [B, L + count].

    Args:
        route: blocks that were trained on single tokens.
        tokens: at least one token a row.
        count: of tokens to write.
        noise: a function of the row of `tokens`.
        steps: levels that each token goes through, of equal probability; None for one a block.
        temperature: of the last probabilities; 0 for the likeliest token.

    Raises:
        RecipeError: there are fewer steps than blocks.
    """
    sampler = _Sampler(route, len(tokens), tokens.shape[1] + count, steps)
    for place in range(count):
        logits = sampler.next_logits(tokens, noise, 2 * place)
        if temperature:
            uniform = noise.uniform(sampler.rows, logits.shape[-1], stream=2 * place + 1)
            logits = logits / temperature - torch.log(-torch.log(uniform))  # Gumbel: the largest one is a draw
        tokens = torch.cat((tokens, logits.argmax(dim=-1, keepdim=True)), dim=1)
    return tokens


@torch.no_grad()
def predict(
    route: DiffusionBlocksModule,
    tokens: Tensor,
    noise: Noise,
    *,
    steps: int | None = None,
    document_ids: Tensor | None = None,
    target_document_ids: Tensor | None = None,
) -> Tensor:
    """Return the logits of the token after each position of rows [B, L], [B, L, V], as `sample` makes them.

    Probabilities depend on the noise that each position begins with. Their mean over it is the sampler's own
    distribution, so the cross-entropy of one draw is above that of the sampler, on average.

    Args:
        route: blocks that were trained on single tokens.
        tokens: whole rows of text.
        noise: a function of the row of `tokens`.
        steps: see `sample`.
        document_ids, target_document_ids: see `LanguageModel.forward_pair`.

    Raises:
        RecipeError: there are fewer steps than blocks.
    """
    model, (batch, length), documents = route.model, tokens.shape, (document_ids, target_document_ids)
    levels = _descent(route, steps)
    embeddings = route.scaled(model.embedding.weight)
    clean = embeddings[tokens]
    rows = torch.arange(batch, device=tokens.device)
    z = levels[0].sigma * noise.normal(rows, length, clean.shape[-1]).to(clean.dtype)
    logits = z
    for level in levels:
        sigma = torch.full_like(rows, level.sigma, dtype=clean.dtype)
        denoised = route.denoise(clean, z, sigma, level.variant, *documents)
        logits = model.logits(denoised.to(stream_precision(model.embedding.weight)))
        z = _step(z, logits, level, embeddings)
    return logits.float()


class _Level(NamedTuple):
    """One of the levels that a token goes down."""

    variant: int
    """The block whose range it is in."""
    sigma: float
    next_sigma: float


def _descent(route: DiffusionBlocksModule, steps: int | None) -> list[_Level]:
    """Return the levels of a token, of equal probability; None for one a block."""
    steps = steps or route.variants
    if steps < route.variants:
        raise RecipeError(
            f"{steps} steps leave out some of {route.variants} blocks",
            where="the sampler of DiffusionBlocks",
            hint="give at least as many steps as there are blocks",
        )
    ends = pairwise([*route.spec.levels.boundaries(steps)[:-1], 0.0])
    return [_Level(step * route.variants // steps, *pair) for step, pair in enumerate(ends)]


def _step(z: Tensor, logits: Tensor, level: _Level, embeddings: Tensor) -> Tensor:
    """Return z at the next level, towards the mean embedding under the probabilities of the tokens."""
    expected = torch.softmax(logits.to(z.dtype), dim=-1) @ embeddings
    return euler_step(z, expected, level.sigma, level.next_sigma)


class _Sampler:
    """The states of each step, of the text so far."""

    def __init__(self, route: DiffusionBlocksModule, rows: int, capacity: int, steps: int | None):
        self.route, self.model = route, route.model
        self.levels = _descent(route, steps)
        self.rows = torch.arange(rows, device=self.model.embedding.weight.device)
        self.embeddings = route.scaled(self.model.embedding.weight)  # [V, D]
        self.states = [self.model.empty_states(rows, capacity)[route.layers[each.variant]] for each in self.levels]
        self.read = 0
        """Tokens of a row that the states hold."""

    def next_logits(self, tokens: Tensor, noise: Noise, stream: int) -> Tensor:
        """Return the logits of the token after rows [B, L], [B, V], and take in the tokens that were not read yet."""
        fresh = self.embeddings[tokens[:, self.read :]]
        z = self.levels[0].sigma * noise.normal(self.rows, 1, fresh.shape[-1], stream=stream).to(fresh.dtype)
        logits = z
        for level, states in zip(self.levels, self.states, strict=True):
            sigma = torch.full_like(self.rows, level.sigma, dtype=fresh.dtype)
            clean, noisy = self.route.inputs(fresh, z, sigma, level.variant)
            modulations = self.route.modulations(sigma, level.variant)
            self._decode(clean, states, level.variant, self.read, modulations)
            copied = [{name: one.clone() for name, one in state.items()} for state in states]
            made = self._decode(noisy, copied, level.variant, tokens.shape[1], modulations)
            denoised = self.route.combine(z, made, sigma)
            logits = self.model.logits(denoised.to(made.dtype))
            z = _step(z, logits, level, self.embeddings)
        self.read = tokens.shape[1]
        return logits[:, 0].float()

    def _decode(
        self, x: Tensor, states: list[State], variant: int, position: int, modulations: list[LayerModulation] | None
    ) -> Tensor:
        positions = torch.full_like(self.rows, position)
        lengths = torch.full_like(self.rows, x.shape[1])
        return self.model.decode(x, states, positions, lengths, self.route.layers[variant], modulations)
