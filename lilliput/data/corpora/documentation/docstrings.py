"""The docstrings of a Python source file, with the names and arguments they describe; parsed, never imported."""

import ast
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lilliput.data.corpora.documentation.markup import plain

SHORTEST = 40
"""Docstrings of fewer characters say too little to be kept."""
WIDEST = 160
"""Longer headers lose their last arguments."""

Kind = Literal["module", "class", "function", "attribute", "text"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One docstring, in plain English."""

    package: str
    """Top-level package or module: the unit of the held-out split."""
    path: str
    """Path relative to the package, with forward slashes."""
    kind: Kind
    """Kind of the described thing; "text" describes itself and has no header."""
    name: str
    """Dotted name without private modules, e.g. "json.dumps"; for "text" a title."""
    arguments: str | None
    """Between the brackets, without annotations; None for modules, properties and classes without `__init__`."""
    docstring: str

    @property
    def title(self) -> str:
        """The header, e.g. "json.dumps(obj, skipkeys=False, indent=None)", of at most `WIDEST` characters."""
        if self.arguments is None:
            return self.name
        title = f"{self.name}({self.arguments})"
        if len(title) <= WIDEST:
            return title
        cut = title.rfind(",", 0, WIDEST - len(", ...)") + 1)
        return f"{title[:cut]}, ...)" if cut > len(self.name) else f"{self.name}(...)"

    @property
    def text(self) -> str:
        """Header and docstring."""
        return self.headed(self.docstring)

    def headed(self, text: str) -> str:
        """A text below the header."""
        return text if self.kind == "text" else f"{self.title}\n{text}"


def entries_of(source: bytes, package: str, path: str) -> list[Entry]:
    """The docstrings of a module, its classes and functions, nested ones too, in the order of the source.

    Args:
        source: the bytes of the file; their encoding declaration is followed.
        package: its top-level package or module.
        path: its place below the package, e.g. "linalg/__init__.py".

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: this Python cannot parse it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    module = _module(package, path)
    found = []
    for node, name in ((tree, module), *_definitions(tree, module)):
        docstring = ast.get_docstring(node, clean=False)
        if docstring and len(docstring) >= SHORTEST:
            text = plain(inspect.cleandoc(docstring))
            if len(text) >= SHORTEST:
                found.append(Entry(package, path, _kind(node), name, _arguments(node), text))
    return found


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[Definition, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = f"{prefix}.{child.name}"
            yield child, name
            yield from _definitions(child, name)
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _definitions(child, prefix)


def _module(package: str, path: str) -> str:
    """The dotted name of a module as people import from it: "scipy.optimize" for "optimize/_root.py" of scipy."""
    parts = [] if path == f"{package}.py" else path.removesuffix(".py").split("/")
    while parts and parts[-1].startswith("_"):
        parts.pop()
    return ".".join((package, *parts))


def _kind(node: ast.Module | Definition) -> Kind:
    if isinstance(node, ast.Module):
        return "module"
    if isinstance(node, ast.ClassDef):
        return "class"
    return "attribute" if any(map(_is_property, node.decorator_list)) else "function"


def _arguments(node: ast.Module | Definition) -> str | None:
    if isinstance(node, ast.Module) or _kind(node) == "attribute":
        return None
    if isinstance(node, ast.ClassDef):
        constructors = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
        return _arguments(constructors[0]) if constructors else None
    arguments = node.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    text = ast.unparse(arguments)
    first, _, rest = text.partition(", ")
    return rest if first in ("self", "cls") else text


def _is_property(decorator: ast.expr) -> bool:
    """Also `functools.cached_property`, `x.setter`, `abc.abstractproperty` and relatives."""
    name = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")
    return name.endswith("property") or name in ("setter", "deleter")
