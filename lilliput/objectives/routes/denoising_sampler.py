"""Text from denoising blocks, while they are no ordinary model yet: each new token is denoised block by block.

A token begins as noise of the largest level and goes down the levels in Euler's steps, each made by the block whose
range the level is in. The text before it is read by the block's own layers, at that level too, so that there is a
state for each step. Cross-entropy through a norm teaches the direction of D(z) and not its length; so a step goes to
the mean embedding under the probabilities of the tokens, which is what D(z) estimates.

Shapes: B rows, L positions, D width, V vocabulary.
"""

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.nn.mixer import State
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
    sampler = _Sampler(route, len(tokens), tokens.shape[1] + count, steps or route.variants)
    for place in range(count):
        logits = sampler.next_logits(tokens, noise, 2 * place)
        if temperature:
            uniform = noise.uniform(sampler.rows, logits.shape[-1], stream=2 * place + 1)
            logits = logits / temperature - torch.log(-torch.log(uniform))  # Gumbel: the largest one is a draw
        tokens = torch.cat((tokens, logits.argmax(dim=-1, keepdim=True)), dim=1)
    return tokens


class _Sampler:
    """The states of each step, of the text so far."""

    def __init__(self, route: DiffusionBlocksModule, rows: int, capacity: int, steps: int):
        if steps < route.variants:
            raise RecipeError(
                f"{steps} steps leave out some of {route.variants} blocks",
                where="the sampler of DiffusionBlocks",
                hint="give at least as many steps as there are blocks",
            )
        self.route, self.model = route, route.model
        self.levels = [*route.spec.levels.boundaries(steps)[:-1], 0.0]
        self.variants = [step * route.variants // steps for step in range(steps)]
        self.rows = torch.arange(rows, device=self.model.embedding.weight.device)
        self.embeddings = route.scaled(self.model.embedding.weight)  # [V, D]
        self.states = [self.model.empty_states(rows, capacity)[route.layers[block]] for block in self.variants]
        self.read = 0
        """Tokens of a row that the states hold."""

    def next_logits(self, tokens: Tensor, noise: Noise, stream: int) -> Tensor:
        """Return the logits of the token after rows [B, L], [B, V], and take in the tokens that were not read yet."""
        fresh = self.embeddings[tokens[:, self.read :]]
        z = self.levels[0] * noise.normal(self.rows, 1, fresh.shape[-1], stream=stream).to(fresh.dtype)
        logits = z
        for step, variant in enumerate(self.variants):
            sigma, next_sigma = self.levels[step : step + 2]
            level = torch.full_like(self.rows, sigma, dtype=fresh.dtype)
            clean, noisy = self.route.inputs(fresh, z, level, variant)
            self._decode(clean, self.states[step], variant, self.read)
            copied = [{name: one.clone() for name, one in state.items()} for state in self.states[step]]
            made = self._decode(noisy, copied, variant, tokens.shape[1])
            denoised = self.route.combine(z, made, level)
            logits = self.model.logits(denoised.to(made.dtype))
            expected = torch.softmax(logits.to(z.dtype), dim=-1) @ self.embeddings
            z = euler_step(z, expected, sigma, next_sigma)
        self.read = tokens.shape[1]
        return logits[:, 0].float()

    def _decode(self, x: Tensor, states: list[State], variant: int, position: int) -> Tensor:
        positions = torch.full_like(self.rows, position)
        lengths = torch.full_like(self.rows, x.shape[1])
        return self.model.decode(x, states, positions, lengths, self.route.layers[variant])
