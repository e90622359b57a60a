"""Shares of right answers that a benchmark can have: a score of n questions is k / n, rounded, for a whole number k."""

import math

QUESTIONS = {
    "HellaSwag": 10_042,
    "ARC-Easy": 2_376,
    "ARC-Challenge": 1_172,
    "PIQA": 1_838,
    "COPA": 100,
    "BoolQ": 3_270,
    "Winograd (SuperGLUE WSC)": 104,
    "Winograd (WSC273)": 273,
    "WinoGrande": 1_267,
    "AQuA-RAT (AGIEval)": 254,
    "OpenBookQA": 500,
    "CommonsenseQA": 1_221,
    "TruthfulQA MC1": 817,
    "ArithMark-2.0": 2_500,
    "ArithMark-3": 1_000,
}
"""Questions of public benchmarks, by their names on cards. Those are left out whose score is no count of right answers
(TruthfulQA MC2)."""
COUNTED = ("acc", "acc_norm", "acc_bytes")
"""Metrics that count right answers."""


def objection(percent: str, questions: int) -> str | None:
    """Say why a score cannot be one of so many questions; None if it can.

    Args:
        percent: as it is quoted: its decimals tell how it was rounded.
        questions: of the benchmark.

    Raises:
        ValueError: it is no number.
    """
    value = float(percent)
    decimals = len(percent.partition(".")[2])
    slack = 0.5 * 10.0**-decimals + 1e-9
    below = math.floor(value / 100 * questions + 1e-9)
    if any(abs(100 * count / questions - value) <= slack for count in (below, below + 1)) and 0 <= value <= 100:
        return None
    if not 0 <= value <= 100:
        return f"{percent}% is no share"
    near = " and ".join(f"{count:,} are {100 * count / questions:.{decimals}f}%" for count in (below, below + 1))
    return f"{percent}% is no share of {questions:,} questions: {near}"


def count_of(value: float, questions: int) -> int | None:
    """The right answers behind an unrounded share of so many questions; None if no whole number gives it."""
    count = round(value * questions)
    return count if 0 <= count <= questions and math.isclose(count / questions, value, abs_tol=1e-9) else None
