"""AdamW (arXiv 1711.05101) with groups by role: PyTorch's fused one, or ours where decay is cautious."""

from dataclasses import dataclass
from math import inf

import torch
from torch import nn

from lilliput.base.spec import check_range
from lilliput.optim.matrix_optimizer import GroupedOptimizer
from lilliput.optim.roles import groups


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """One learning rate for matrices, one for embeddings and head; vectors and objectives' own are never decayed."""

    lr: float
    """Peak for matrices and vectors."""
    embedding_lr: float | None = None
    """Peak for embedding and head; None means `lr`."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    cautious: bool = False
    """True if decay spares entries that their step leads away from zero (arXiv 2510.12402)."""

    def __post_init__(self) -> None:
        wide = self.lr if self.embedding_lr is None else self.embedding_lr
        check_range("AdamW", 0, inf, lr=self.lr, embedding_lr=wide, eps=self.eps, weight_decay=self.weight_decay)
        check_range("AdamW(betas=)", 0, 1, first=self.betas[0], second=self.betas[1])

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        wide = self.lr if self.embedding_lr is None else self.embedding_lr
        vectors = {"peak": self.lr, "weight_decay": 0.0, "betas": self.betas, "eps": self.eps}
        matrices = vectors | {"weight_decay": self.weight_decay}
        by_role = groups(model, matrices, matrices | {"peak": wide}, vectors)
        if self.cautious:
            return GroupedOptimizer(group | {"cautious": True} for group in by_role)
        device = next(model.parameters()).device
        on_cuda = device.type == "cuda"
        if on_cuda:  # rates are read there, so that a recorded step follows them
            by_role = [group | {"lr": torch.tensor(group["peak"], device=device)} for group in by_role]
        return torch.optim.AdamW(by_role, lr=self.lr, fused=True, capturable=on_cuda)
