"""Lilliput, the small-language-model foundry: raw text to a published small language model.

import lilliput

model = lilliput.load("runs/quickstart")
print(model.generate([{"role": "user", "content": "What does `json.dumps(obj)` do?"}]))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lilliput.api import Choice as Choice
    from lilliput.api import Model as Model
    from lilliput.api import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load`, `Model` and `Choice`, imported when asked for: `import lilliput` stays light."""
    if name in ("Choice", "Model", "load"):
        return getattr(import_module("lilliput.api"), name)
    raise AttributeError(f"module 'lilliput' has no attribute {name!r}")
