"""Roles of parameters in an optimizer: every parameter has exactly one."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from torch import nn


class Role(Enum):
    """By name and rank, never by rank alone: an embedding is two-dimensional but no matrix, nor are the rows of
    numbers, one a layer, that mixers share."""

    MATRIX = "matrix"
    EMBEDDING = "embedding"
    HEAD = "head"
    VECTOR = "vector"
    OBJECTIVE = "objective"
    """Owned by an objective of the phase, such as a small network that conditions on noise; of any rank."""


def roles(model: nn.Module) -> dict[Role, dict[str, nn.Parameter]]:
    """Return parameters by role and name; the union is exactly `model.named_parameters()`.

    Args:
        model: a language model, or a `Trainable` around one.
    """
    found: dict[Role, dict[str, nn.Parameter]] = {role: {} for role in Role}
    for name, parameter in model.named_parameters():
        found[role_of(name, parameter)][name] = parameter
    return found


def groups(
    model: nn.Module, matrices: Mapping[str, Any], wide: Mapping[str, Any], vectors: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the groups of an optimizer, one for each role that the model has.

    Args:
        model: see `roles`.
        matrices: settings of matrices.
        wide: settings of embedding and head.
        vectors: settings of vectors and of what objectives own.
    """
    settings = {Role.MATRIX: matrices, Role.EMBEDDING: wide, Role.HEAD: wide}
    return [
        {"params": list(by_name.values()), "role": role.value, **settings.get(role, vectors)}
        for role, by_name in roles(model).items()
        if by_name
    ]


def role_of(name: str, parameter: nn.Parameter) -> Role:
    """Return the role of one parameter of a language model, or of an objective around it."""
    if name.startswith("objective."):
        return Role.OBJECTIVE
    if name == "embedding.weight":
        return Role.EMBEDDING
    if name == "output.weight":
        return Role.HEAD
    if parameter.ndim < 2 or name.startswith("shared."):
        return Role.VECTOR
    assert parameter.ndim == 2 and name.startswith("layers."), f"no role for {name} of shape {tuple(parameter.shape)}"
    return Role.MATRIX
