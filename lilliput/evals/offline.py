"""Evaluation libraries without terminal output or model code outside one folder, and without network."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

REMOTE_MODULES = "transformers_modules"
"""The package under which transformers imports the code that a model folder ships."""


@contextmanager
def offline(work: Path) -> Iterator[None]:
    """Keep the Hugging Face libraries local and silent, and put their copies of model code under `work/modules`.

    These libraries read their environment variables when they are imported, which may be long before; so the values
    they read are set, and put back at the end.
    """
    import datasets.config
    import huggingface_hub.constants

    with quiet(work), ExitStack() as stack:
        _set(stack, huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        _set(stack, datasets.config, "HF_HUB_OFFLINE", True)
        yield


@contextmanager
def quiet(work: Path) -> Iterator[None]:
    """The same with network: silent, model code under `work/modules`."""
    import tqdm
    import transformers.dynamic_module_utils

    start_bar = tqdm.tqdm.__init__

    def start_no_bar(self: Any, *args: Any, **settings: Any) -> None:
        start_bar(self, *args, **(settings | {"disable": True}))

    modules = str(work.resolve() / "modules")
    with ExitStack() as stack:
        _set(stack, transformers.dynamic_module_utils, "HF_MODULES_CACHE", modules)
        _set(stack, tqdm.tqdm, "__init__", start_no_bar)
        for library in ("lm_eval", "transformers", "datasets", "accelerate", "huggingface_hub"):
            logger = logging.getLogger(library)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        # Model code imported from another folder would answer to the same module names.
        earlier = _take_remote_modules()
        stack.callback(sys.modules.update, earlier)
        stack.callback(_take_remote_modules)
        sys.path.insert(0, modules)
        stack.callback(sys.path.remove, modules)
        yield


def _set(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _take_remote_modules() -> dict[str, Any]:
    names = [name for name in sys.modules if name.partition(".")[0] == REMOTE_MODULES]
    return {name: sys.modules.pop(name) for name in names}
