"""Lilliput, the small-language-model foundry: raw text to a published small language model.

import lilliput

model = lilliput.load("runs/quickstart")
print(model.generate([{"role": "user", "content": "What does `json.dumps(obj)` do?"}]))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lilliput.base import __version__ as __version__

if TYPE_CHECKING:
    from lilliput.api import Choice as Choice
    from lilliput.api import Model as Model
    from lilliput.api import load as load
    from lilliput.run.api import Run as Run
    from lilliput.run.api import evaluate_model as evaluate_model
    from lilliput.run.api import run_recipe as run_recipe
    from lilliput.run.api import train_recipe as train_recipe
    from lilliput.run.trained import load_trained as load_trained

_FROM = {name: "lilliput.api" for name in ("Choice", "Model", "load")} | {
    name: "lilliput.run.api" for name in ("Run", "evaluate_model", "run_recipe", "train_recipe")
}
_FROM["load_trained"] = "lilliput.run.trained"
"""Modules that define the names; each is imported on first use, so that `import lilliput` stays light."""


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(import_module(_FROM[name]), name)
    raise AttributeError(f"module 'lilliput' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*_FROM, *(name for name in globals() if name.startswith("__"))})
