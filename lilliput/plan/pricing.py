"""Energy and price of machine hours; every number is the user's own."""

import math
from dataclasses import dataclass

from lilliput.base.errors import MachineError


@dataclass(frozen=True, kw_only=True)
class Tariff:
    """Power and prices of a machine; None if not given."""

    price_per_hour: float | None = None
    """Price of the machine itself, e.g. its rent."""
    watts: float | None = None
    """Drawn while training; alone it gives energy and no price."""
    price_per_kwh: float | None = None
    """Price of electricity; added to `price_per_hour` if both are given."""
    currency: str | None = None
    """A word that is shown beside prices."""

    def __post_init__(self) -> None:
        for name in ("price_per_hour", "watts", "price_per_kwh"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise MachineError(
                    f"{name} cannot be {value}", where=f"the tariff's `{name}`", hint="give a number of at least 0"
                )
        if self.price_per_kwh is not None and self.watts is None:
            raise MachineError(
                f"price_per_kwh is {self.price_per_kwh}, but the machine's power is not given",
                where="the tariff's `price_per_kwh`",
                hint="give watts too",
            )
        if self.currency is not None and self.price_per_hour is None and self.price_per_kwh is None:
            raise MachineError(
                f"currency is {self.currency}, but no price is given",
                where="the tariff's `currency`",
                hint="give price_per_hour, or watts and price_per_kwh",
            )

    def bill(self, seconds: float) -> dict[str, float | str | None]:
        """`kwh`, `price` and `currency` of so many seconds; None where too little was said."""
        hours = seconds / 3600
        kwh = None if self.watts is None else hours * self.watts / 1000
        prices = []
        if self.price_per_hour is not None:
            prices.append(hours * self.price_per_hour)
        if kwh is not None and self.price_per_kwh is not None:
            prices.append(kwh * self.price_per_kwh)
        return {"kwh": kwh, "price": sum(prices) if prices else None, "currency": self.currency}
