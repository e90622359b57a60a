"""The losses of what a route returns: each stream through the head, against the same targets.

Shapes: B rows, L positions, A targets of a position, D width.
"""

from collections.abc import Sequence

from torch import Tensor

from lilliput.model import LanguageModel
from lilliput.objectives.objective import Losses
from lilliput.objectives.routes.route import Routed
from lilliput.objectives.terms import Term, combined_coefficients
from lilliput.ops.fused_linear_cross_entropy import LinearCrossEntropy, LossCoefficients, fused_linear_cross_entropy


def stream_losses(
    model: LanguageModel,
    terms: Sequence[Term],
    streams: Sequence[Routed],
    targets: Tensor,
    weight: Tensor,
    share: float | Tensor,
    *,
    near: int | None = None,
    whole: float | Tensor = 1.0,
) -> Losses:
    """Return the losses of streams against the same targets.

    Args:
        model: whose final norm and head read the streams.
        terms: of the loss.
        streams: of a route.
        targets: token ids [B, L, A].
        weight: of each target [B, L, A].
        share: factor of all sums, which makes them shares of a step.
        near: number of targets that the recorded terms include; None for all.
        whole: factor that makes the weights of the `near` targets add up to 1.
    """
    coefficients = combined_coefficients(terms)
    totals: list[Tensor] = []
    recorded: dict[str, Tensor] = {}
    for routed in streams:
        by_row = None if routed.weight is None else routed.weight[:, None, None]
        charged = weight if by_row is None else weight * by_row
        losses = cross_entropy(model, routed.hidden, targets, charged, coefficients)
        charge, of_near = weight.sum(dim=-1), losses.loss[..., :near] * whole
        of_near = of_near if by_row is None else of_near / by_row
        totals.append(losses.total * share)
        prefix = f"{routed.name}/" if routed.name else ""
        for term in terms:
            recorded[prefix + term.name] = term.coefficients.combine(of_near, losses.lse, charge) * share
    return Losses(sum(totals[1:], totals[0]), recorded)


def cross_entropy(
    model: LanguageModel, hidden: Tensor, targets: Tensor, weight: Tensor, coefficients: LossCoefficients
) -> LinearCrossEntropy:
    """Return the cross-entropy of a stream through a model's final norm and head; see `fused_linear_cross_entropy`.

    Args:
        model: of the stream.
        hidden: [B, L, D], before the final norm.
        targets: token ids [B, L, A].
        weight: of each target [B, L, A].
        coefficients: of the terms together.
    """
    return fused_linear_cross_entropy(
        model.norm(hidden),
        model.head_weight,
        targets,
        weight,
        softcap=model.spec.logit_softcap,
        coefficients=coefficients,
    )
