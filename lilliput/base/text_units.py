"""Numbers as people read them: `138.4 M`, `3.0 MiB`, `4 h 12 min`."""

MINUTE, HOUR, DAY = 60, 3_600, 86_400


def number(value: float) -> str:
    """A count, in thousands, millions, billions (B) or trillions (T): `138.4 M`; whole below a thousand."""
    return _scaled(value, 1_000, ("", " k", " M", " B", " T"))


def size(value: float) -> str:
    """Bytes in binary units: `3.0 MiB`."""
    return _scaled(value, 1_024, (" B", " KiB", " MiB", " GiB", " TiB"))


def flops(value: float) -> str:
    """Floating-point operations: `1.84e18`."""
    return f"{value:.2e}".replace("e+", "e") if value else "0"


def operations_rate(value: float) -> str:
    """Floating-point operations a second: `35.6 GFLOP/s`."""
    return _scaled(value, 1_000, tuple(f" {unit}FLOP/s" for unit in ("", "k", "M", "G", "T", "P")))


def duration(seconds: float) -> str:
    """A time in its two largest units: `4 h 12 min`; below a minute in seconds or milliseconds."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < HOUR - 0.5:
        minutes, rest = divmod(round(seconds), MINUTE)
        return f"{minutes} min {rest} s"
    if seconds < DAY - MINUTE / 2:
        hours, rest = divmod(round(seconds / MINUTE), 60)
        return f"{hours} h {rest} min"
    days, rest = divmod(round(seconds / HOUR), 24)
    return f"{days:,} d {rest} h"


def price(value: float, currency: str | None) -> str:
    """Money, with its currency where it was told."""
    shown = f"{value:,.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"
    return f"{shown} {currency}" if currency else shown


def energy(kwh: float) -> str:
    """Kilowatt-hours."""
    return f"{kwh:,.1f} kWh" if kwh >= 1 else f"{kwh:.2g} kWh"


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    if value < step and value == int(value):
        return f"{int(value)}{units[0]}"
    unit = 0
    while round(value, 1) >= step and unit < len(units) - 1:
        value, unit = value / step, unit + 1
    return f"{value:,.1f}{units[unit]}"
