"""The seam between a native model and a Hugging Face architecture: a config, and a table of parameter names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from torch import Tensor

from lilliput.base.errors import ExportError
from lilliput.model import ModelSpec

T = TypeVar("T")

SHOWN = 80
"""Characters of a value that an error quotes; a longer one is named by its type."""


class HFFormat(Protocol):
    """A Hugging Face architecture as recipes write it; a frozen dataclass."""

    @property
    def context(self) -> int:
        """Tokens the model was trained to read at once: `max_position_embeddings`."""
        ...

    @property
    def remote_files(self) -> tuple[Path, ...]:
        """Code that has to travel with the weights; none where transformers knows the architecture itself."""
        ...

    def check_supported(self, spec: ModelSpec) -> None:
        """Raise ExportError where the spec has something that the architecture cannot express."""
        ...

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        """Return what config.json says of the architecture; the dtype and the token ids are the export's."""
        ...

    def names(self, spec: ModelSpec) -> dict[str, str]:
        """Native parameter name -> exported name, one to one over all parameters of the model."""
        ...

    def row_permutations(self, spec: ModelSpec) -> dict[str, Tensor]:
        """Native parameter name -> which of its rows each exported row is, for parameters whose rows change places."""
        ...


def expand(table: Mapping[str, str], layers: int) -> dict[str, str]:
    """A table of names with `{}` for the layer number, written out for every layer."""
    names = {}
    for native, exported in table.items():
        if "{}" not in native:
            names[native] = exported
            continue
        for layer in range(layers):
            names[native.format(layer)] = exported.format(layer)
    return names


def exactly(layout: HFFormat, part: str, value: Any, *kinds: type[T]) -> T:
    """The `value` of a spec's `part`, refused unless it is of one of these kinds (and of no kind derived from them)."""
    if type(value) not in kinds:
        refuse(layout, part, value, " or ".join(kind.__name__ for kind in kinds))
    return value


def refuse(layout: HFFormat, part: str, value: Any, needed: str) -> NoReturn:
    """Refuse a spec that a layout cannot express, and say what it needs instead.

    Args:
        layout: the layout.
        part: name of the spec's field.
        value: its value.
        needed: what the layout can express.

    Raises:
        ExportError: always.
    """
    given = repr(value)
    if len(given) > SHOWN:
        given = f"{type(value).__name__}(...)"
    raise ExportError(
        f"{type(layout).__name__} cannot express {part}={given}",
        where=f"Release(layout={type(layout).__name__}(...)) of a ModelSpec({part}=...)",
        hint=f"this layout needs {needed}; change the model, choose another layout, or leave the release out: trained "
        "weights are used without one, lilliput generate|score|chat|eval RECIPE --out RUN",
    )
