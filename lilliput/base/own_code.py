"""The Python files of a recipe of one's own, run under names that nothing else finds.

A recipe file may import its neighbors. All of them are run from bytes that were read before, as modules of a package
with a name of its own: `import layers` in the recipe file finds the neighbor, anywhere else it finds what it always
found, and two recipes may both have a `layers.py`. In the plain form of a recipe their types have the short names that
the files give them, `layers:Mixer`, which mean nothing but in the code that is in use (`using`).
"""

import builtins
import importlib
import importlib.util
import linecache
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from hashlib import sha256
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from lilliput.base.errors import LilliputError, RecipeError
from lilliput.base.files import hash_of

LIBRARIES = frozenset(
    "lilliput torch numpy tokenizers safetensors transformers lm_eval accelerate datasets huggingface_hub pyarrow "
    "jinja2 markdown_it matplotlib packaging py3langid rich tokie typer triton".split()
)
"""Lilliput and what it needs: a file of that name is no neighbor, nor is one with a name of Python's own modules."""
_PACKAGE = "_lilliput_own_code_"
_PRIVATE = re.compile(rf"{_PACKAGE}\w+\.")


@dataclass(frozen=True, kw_only=True)
class Code:
    """A recipe file and the neighbors that it imports, as bytes."""

    main: str
    """The name of the recipe file."""
    files: Mapping[str, bytes]
    """By their paths below the folder of the recipe file, with slashes."""
    folder: Path
    """Folder of the files; it is no part of the hash."""

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file."""
        return {name: sha256(self.files[name]).hexdigest() for name in sorted(self.files)}

    @cached_property
    def digest(self) -> str:
        """A hash that changes with any byte of any file."""
        return digest_of(self.main, self.hashes)

    @cached_property
    def modules(self) -> dict[str, str]:
        """The file of each module, by the name that it has in an import."""
        return {module_of(name): name for name in self.files}


class Loaded:
    """Code that runs in this process.

    Args:
        code: what to run, once; it may be whatever it is: whoever calls this trusts it.

    Raises:
        RecipeError: the recipe file fails.
    """

    def __init__(self, code: Code):
        self.code, self._package = code, f"{_PACKAGE}{code.digest[:12]}_{next(_numbers)}"
        package = ModuleType(self._package)
        package.__path__ = []
        sys.modules[self._package] = package
        _running[self._package] = self
        try:
            self.main = self._run_main()
        except BaseException as error:
            self._forget()
            if isinstance(error, LilliputError) or not isinstance(error, Exception):
                raise
            raise RecipeError(
                f"the file fails with {type(error).__name__}: {error}",
                where=str(code.folder / code.main),
                hint="fix the file",
            ) from error
        _latest[code.digest] = self

    def type_named(self, name: str) -> type | None:
        """The class that a plain form means by a name such as `mine:Mixer`; None if these files define none such."""
        module, _, path = name.partition(":")
        if module not in self.code.modules:
            return None
        found: Any = importlib.import_module(f"{self._package}.{module}")
        for part in path.split("."):
            found = getattr(found, part, None)
        is_defined_here = isinstance(found, type) and self.defines(found) and plain_name(found) == name
        return found if is_defined_here else None

    def classes(self) -> list[type]:
        """Every class of these files that has run until now, those of the recipe file last."""
        modules = [sys.modules.get(f"{self._package}.{name}") for name in self.code.modules]
        found = [kind for module in (*modules, self.main) if module for kind in vars(module).values()]
        return [kind for kind in found if isinstance(kind, type) and self.defines(kind)]

    def defines(self, kind: type) -> bool:
        """Return whether a class comes from these files, as this process runs them."""
        return _loaded_of(kind) is self

    def has(self, module: str) -> bool:
        """Return whether a module, or one below it, is of these files."""
        return any(f"{each}.".startswith(f"{module}.") for each in self.code.modules)

    def spec(self, module: str) -> ModuleSpec:
        """Return how Python imports a module of these files; a folder without `__init__.py` is a package too."""
        name = self.code.modules.get(module)
        is_package = name is None or name.endswith("/__init__.py")
        loader = _Source(self, name) if name is not None else None
        spec = ModuleSpec(f"{self._package}.{module}", loader, is_package=is_package)
        if name is not None:
            spec.origin, spec.has_location = str(self.code.folder / name), True
        return spec

    def imported(
        self,
        name: str,
        variables: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Import for these files, as their `__import__`: neighbors by their private names, everything else as ever."""
        first = name.partition(".")[0]
        if level or is_library(first) or not self.has(first):
            return builtins.__import__(name, variables, local, fromlist, level)
        found = importlib.import_module(f"{self._package}.{name}")
        if fromlist:
            return builtins.__import__(found.__name__, variables, local, fromlist, 0)
        return sys.modules[f"{self._package}.{first}"]

    def _run_main(self) -> ModuleType:
        """Run the recipe file; its name may be one that no import could say, such as `my-model.py`."""
        spec = self.spec(module_of(self.code.main))
        main = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = main
        assert spec.loader is not None
        spec.loader.exec_module(main)
        return main

    def _forget(self) -> None:
        del _running[self._package]
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{self._package}.")]:
            del sys.modules[name]


def digest_of(main: str, hashes: Mapping[str, str]) -> str:
    """The hash of code whose files have these hashes."""
    return hash_of({"main": main, "files": dict(hashes)})


def module_of(file: str) -> str:
    """The name of a file's module in an import."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def lines_of(source: bytes) -> list[str]:
    """The lines of a file as Python counts them: a form feed, say, ends none."""
    return importlib.util.decode_source(source).split("\n")


def is_library(module: str) -> bool:
    """Return whether a name in an import is one of Python's own modules, or of Lilliput's and what it needs."""
    return module in sys.stdlib_module_names or module in LIBRARIES


def loaded(digest: str) -> Loaded | None:
    """The code of that hash, if this process has run it; the last time, where there were several."""
    return _latest.get(digest)


def plain_name(kind: type) -> str:
    """The name of a class in plain forms."""
    return f"{_PRIVATE.sub('', kind.__module__, count=1)}:{kind.__qualname__}"


def is_own(kind: type) -> bool:
    """Return whether a class comes from a recipe file, or from a neighbor of one."""
    return _loaded_of(kind) is not None


def is_own_module(name: str) -> bool:
    """Return whether a module, by its full name, is a recipe file or a neighbor of one."""
    return name.partition(".")[0] in _running


def own_types(value: Any) -> Iterator[type]:
    """The classes from recipe files in a spec, or in several, however deep."""
    if is_dataclass(value) and not isinstance(value, type):
        if is_own(type(value)):
            yield type(value)
        parts = [getattr(value, field.name) for field in fields(value)]
    else:
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    for part in parts:
        yield from own_types(part)


def code_of(value: Any) -> list[Loaded]:
    """All code that the classes of a spec, or of several, come from."""
    return list(dict.fromkeys(found for kind in own_types(value) if (found := _loaded_of(kind))))


@contextmanager
def using(*code: Loaded | None) -> Iterator[None]:
    """Let the names of types in plain forms mean those of this code, before those of code that is in use already."""
    before = _in_use.set((*(one for one in code if one), *_in_use.get()))
    try:
        yield
    finally:
        _in_use.reset(before)


def type_in_use(name: str) -> type | None:
    """The class that a name in a plain form means in the code that is in use."""
    return next((kind for code in _in_use.get() if (kind := code.type_named(name))), None)


def classes_in_use() -> list[type]:
    """Every class that the code in use defines."""
    return [kind for code in reversed(_in_use.get()) for kind in code.classes()]


def _loaded_of(kind: type) -> Loaded | None:
    return _running.get(kind.__module__.partition(".")[0])


class _Source(Loader):
    """Runs one of the files, from its bytes."""

    def __init__(self, code: Loaded, name: str):
        self._code, self._name = code, name

    def exec_module(self, module: ModuleType) -> None:
        source, path = self._code.code.files[self._name], str(self._code.code.folder / self._name)
        # Whoever asks for the source of a function (a traceback, Triton) gets what runs, not what lies there by then.
        lines = [f"{line}\n" for line in lines_of(source)]
        linecache.cache[path] = (len(source), None, lines, path)
        module.__dict__["__builtins__"] = vars(builtins) | {"__import__": self._code.imported}
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)


class _Finder(MetaPathFinder):
    """Finds modules of recipe files by their private names, and no others."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        package, _, module = fullname.partition(".")
        code = _running.get(package)
        return code.spec(module) if code and module and code.has(module) else None


_numbers = count()
_running: dict[str, Loaded] = {}
"""By the name of their package."""
_latest: dict[str, Loaded] = {}
"""By hash."""
_in_use: ContextVar[tuple[Loaded, ...]] = ContextVar("in_use", default=())
sys.meta_path.append(_Finder())
