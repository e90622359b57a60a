"""The nearest semi-orthogonal matrix, by five matrix polynomials (Newton and Schulz's iteration with other numbers).

    X <- a X + (b A + c A^2) X,   A = X X^T,   beginning at X = M / (safety |M|_F + eps)

Singular values end near 1; directions stay. Products only, so it runs wherever matrices are multiplied, in the
precision of the autocast region it is called in. `_naive` is the specification of the iteration; `_fused` makes sums
inside of products and holds X as narrow as they are. Shapes: N matrices of one shape, m rows, n columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.dispatch import check_backend


@dataclass(frozen=True, kw_only=True)
class Polynomials:
    """The numbers of an iteration."""

    coefficients: tuple[tuple[float, float, float], ...]
    """(a, b, c) of each step."""
    safety: float
    """Above 1 where rounding must not push a singular value beyond 1 before the first step."""
    eps: float


POLAR_EXPRESS = Polynomials(
    coefficients=(
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
    safety=1.02,
    eps=1e-6,
)
"""The best five steps from singular values of at least 1e-3 of the largest (arXiv 2505.16932)."""
QUINTIC = Polynomials(coefficients=((3.4445, -4.7750, 2.0315),) * 5, safety=1.0, eps=1e-7)
"""The same polynomial five times, as in Muon (kellerjordan.github.io/posts/muon)."""
POLYNOMIALS = {"polar-express": POLAR_EXPRESS, "quintic": QUINTIC}
"""By the names that recipes write."""


def orthogonalize(
    matrices: Tensor, polynomials: Polynomials = POLAR_EXPRESS, backend: Backend = Backend.AUTO
) -> Tensor:
    """Bring all singular values near 1.

    Args:
        matrices: [N, m, n], fp32 or fp64.
        polynomials: the numbers of the iteration.
        backend: one of `Backend`.

    Returns:
        [N, m, n] in the same dtype; zeros for a matrix of zeros, or whose norm is not finite.
    """
    kind = matrices.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # the meta device never does
    narrow = torch.get_autocast_dtype(kind) if casts else matrices.dtype
    check_backend("orthogonalize", backend, Backend.TORCH)
    if backend is Backend.AUTO:
        backend = Backend.TORCH if matrices.is_cuda else Backend.REFERENCE
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    # The norm is taken and divided by before anything is narrow: fp16 overflows at 65,504. Whatever is not finite makes
    # it infinite or NaN, and what is divided by it zeros or NaN.
    norm = torch.linalg.matrix_norm(x, keepdim=True)
    x = (x / (polynomials.safety * norm + polynomials.eps)).nan_to_num_(nan=0.0)
    x = (_naive if backend is Backend.REFERENCE else _fused)(x, polynomials, narrow)
    # In rows again while it is made wide: steps laid out otherwise than their weights are taken one matrix at a time.
    return (x.mT if tall else x).to(matrices.dtype, memory_format=torch.contiguous_format).contiguous()


def _naive(x: Tensor, polynomials: Polynomials, narrow: torch.dtype) -> Tensor:
    for a, b, c in polynomials.coefficients:
        factor = x.to(narrow)
        gram = factor @ factor.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ factor
    return x


def _fused(x: Tensor, polynomials: Polynomials, narrow: torch.dtype) -> Tensor:
    x = x.to(narrow)
    for a, b, c in polynomials.coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def svd_orthogonalize(matrices: Tensor) -> Tensor:
    """The specification: U V^T of the singular value decomposition."""
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    return u @ v
