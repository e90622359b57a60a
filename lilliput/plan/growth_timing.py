"""When to grow a model in depth, by the rule of G_stack (Du et al., arXiv 2405.15319, section 4).

    log10 d = 0.88 log10 N + 163.27 / log10 C - 5.74

for d tokens of the small model, N parameters of the grown one without embeddings, and C operations in all. It was
fitted to models of 410 million parameters and more; for small budgets it asks for more tokens than there are. The same
paper found that a billion tokens already help, and that layers which have learned nothing do not.
"""

from math import log10


def tokens_before_growth(parameters: int, operations: float) -> float:
    """Return the tokens that a model should read before it grows.

    Args:
        parameters: of the grown model, without embeddings.
        operations: floating-point operations of the whole training, forward and backward.
    """
    return 10 ** (0.88 * log10(parameters) + 163.27 / log10(operations) - 5.74)


def timing_line(tokens: int, advised: int, total: int) -> str:
    """Return words on when a recipe grows its model, beside the rule.

    Args:
        tokens: read before the growth.
        advised: tokens by the rule.
        total: tokens of the whole timeline.
    """
    line = f"grows after {tokens / 1e9:,.2f} B tokens; the rule of arXiv 2405.15319 says {advised / 1e9:,.2f} B"
    return f"{line}, more than the {total / 1e9:,.2f} B of the whole timeline" if advised > total else line
