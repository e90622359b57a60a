"""Estimated hours of a machine that has not been measured, from its published speed."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lilliput.base.code_files import code_at
from lilliput.base.errors import MachineError
from lilliput.base.own_code import Loaded
from lilliput.plan.pricing import Tariff
from lilliput.recipe import names


@dataclass(frozen=True, kw_only=True)
class Rating:
    """Published speed of a machine and price of an hour; `rating` in a machine's file."""

    peak: float
    """Floating-point operations a second of matrix products, at the machine's precision, without sparsity."""
    utilization: float
    """Share of them that training is taken to reach, in (0, 1]."""
    source: str
    """Sources of both numbers."""
    price_per_hour: tuple[float, float] | None = None
    """Lowest and highest price; None if it is not for rent."""
    currency: str | None = None
    price_source: str = ""
    is_tested: bool = False
    """True if Lilliput has run there."""

    def __post_init__(self) -> None:
        if not (self.peak > 0 and 0 < self.utilization <= 1):
            raise MachineError(
                f"{self.utilization} of {self.peak:g} operations a second is no speed",
                where="Rating",
                hint="give a peak above 0 and a share in (0, 1]",
            )

    def estimate(self, operations: float, tariff: Tariff) -> dict[str, Any]:
        """JSON values: `seconds`, `hours`, `kwh`, `price` from and to, or None, `currency`, and what they rest on."""
        seconds = operations / (self.peak * self.utilization)
        bill = tariff.bill(seconds)
        price: list[Any] | None = None if bill["price"] is None else [bill["price"]] * 2
        currency, price_source = bill["currency"], ""
        if price is None and self.price_per_hour is not None:
            price = [seconds / 3600 * one for one in self.price_per_hour]
            currency, price_source = self.currency, self.price_source
        return {
            "seconds": seconds,
            "hours": seconds / 3600,
            "kwh": bill["kwh"],
            "price": price,
            "currency": currency,
            "price_source": price_source,
            "peak": self.peak,
            "utilization": self.utilization,
            "source": self.source,
            "is_tested": self.is_tested,
        }


def machine_rating(name: str) -> Rating | None:
    """The rating beside a machine of the package, or of a Python file; None where it has none."""
    if name.endswith(".py"):
        module = Loaded(code_at(Path(name))).main
    elif name in names("lilliput.machines"):
        module = import_module(f"lilliput.machines.{name.replace('-', '_')}")
    else:
        return None
    return getattr(module, "rating", None)
