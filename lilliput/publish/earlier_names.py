"""Names in releases of Lilliput 0.1: types and fields that are called otherwise since, in `lilliput.json`.

A published folder has to be read for good; recipes and runs are read by the version that wrote them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class _Renamed(NamedTuple):
    type: str
    fields: Mapping[str, str] = _NOTHING
    """New names by old ones."""
    given: Mapping[str, Any] = _NOTHING
    """Fields that the old type had by its name."""


_FORMATS = {
    f"lilliput.publish.layouts.{module}:{name}Layout": _Renamed(f"lilliput.publish.hf_formats.{module}:{name}Format")
    for module, name in (("hgrn2", "HGRN2"), ("llama", "Llama"), ("qwen3", "Qwen3"))
}
_INITS = {
    f"lilliput.nn.initialise:{name}": _Renamed(f"lilliput.nn.init:{name}") for name in ("Normal", "UnscaledNormal")
}
_RENAMED = {
    **_FORMATS,
    **_INITS,
    "lilliput.model:ModelSpec": _Renamed("lilliput.model:ModelSpec", {"logit_cap": "logit_softcap"}),
    "lilliput.nn.block:ScalarGate": _Renamed("lilliput.nn.block:ScalarGate", {"first": "init"}),
    "lilliput.nn.gqa:GQA": _Renamed("lilliput.nn.gqa:GQA", {"cap": "softcap"}),
    "lilliput.nn.hgrn2:HGRN2": _Renamed("lilliput.nn.hgrn2:HGRN2", {"horizons": "forget_timescales"}),
    "lilliput.nn.norm:ZeroCentredRMSNorm": _Renamed("lilliput.nn.norm:ZeroCenteredRMSNorm"),
    "lilliput.nn.rope:EvenLayers": _Renamed("lilliput.nn.rope:RoPE", {"pairs": "layout"}, {"layers": "even"}),
    "lilliput.nn.rope:Everywhere": _Renamed("lilliput.nn.rope:RoPE", {"pairs": "layout"}),
    "lilliput.nn.rope:Nowhere": _Renamed("lilliput.nn.rope:NoPE"),
}


def with_present_names(plain: Any) -> Any:
    """Return a plain form with the names that its types and fields have today; others stay as they are."""
    if isinstance(plain, list):
        return [with_present_names(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    plain = {key: with_present_names(value) for key, value in plain.items()}
    renamed = _RENAMED.get(plain["type"]) if isinstance(plain.get("type"), str) else None
    if renamed is None:
        return plain
    fields = {renamed.fields.get(key, key): value for key, value in plain.items()}
    return fields | {"type": renamed.type, **renamed.given}
