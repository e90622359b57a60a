"""Measured cost of a phase's steps: whole steps, or parts that are added up."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Timed work: passes under one stage's objective, or an update."""

    seconds: float
    """Median."""
    repeats: int


@dataclass(frozen=True, kw_only=True)
class Pass(Measured):
    """Forward and backward of `rows` rows; where whole steps were taken, those of all their rows with the update."""

    rows: int
    activations: int | None
    """Bytes kept between forward and backward, each storage once; weights are not among them. None of a whole step."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of the steps of a phase."""

    passes: tuple[Pass, ...]
    """One a stage."""
    update: Measured | None
    """None where whole steps were taken."""
    rows: int | None = None
    """Most rows of a micro-batch, if found from memory: those of the stage that has the fewest."""
    peak: int | None = None
    """Bytes that the allocator handed out at most during whole steps, everything included; None if unknown."""
