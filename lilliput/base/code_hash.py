"""Hash of the code that defines a class of a recipe file: its text, and that of all in these files that it rests on.

A phase is trained by code, not only by settings, and both can change. The hash of the whole file would change with each
setting in it; so only those statements count whose names the class uses, and whose names these use, across neighbors.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from lilliput.base.code_files import imported
from lilliput.base.files import hash_of
from lilliput.base.own_code import Code, code_of, lines_of, own_types, plain_name


def definitions(value: Any) -> dict[str, str]:
    """The hash of each class from a recipe file in a spec, by its name in plain forms; empty if none."""
    code = {kind: one.code for one in code_of(value) for kind in own_types(value) if one.defines(kind)}
    found = {plain_name(kind): hash_of(sorted(_Rests(one).on(plain_name(kind)))) for kind, one in code.items()}
    return dict(sorted(found.items()))


class _Rests:
    """The statements of code by the names that they bind."""

    def __init__(self, code: Code):
        self._code = code
        self._bound = {module: dict(_bound(code.files[name])) for module, name in code.modules.items()}

    def on(self, name: str) -> set[str]:
        """The text of every statement that a class rests on, its own with it."""
        module, _, path = name.partition(":")
        left, seen, texts = [(module, path.partition(".")[0])], set(), set()
        while left:
            at = left.pop()
            if at in seen:
                continue
            seen.add(at)
            bound = self._bound.get(at[0], {})
            for statement, text in bound.get(at[1]) or bound.get("*", []):
                texts.add(f"{at[0]}: {text}")
                left += self._used(statement, at[0])
        return texts

    def _used(self, statement: ast.stmt, module: str) -> Iterator[tuple[str, str]]:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                yield module, node.id
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield from self._all_of(node, module)

    def _all_of(self, node: ast.Import | ast.ImportFrom, module: str) -> Iterator[tuple[str, str]]:
        """Every name of the neighbors that a statement imports from."""
        for neighbor in imported(node, self._code.modules[module]):
            parts = neighbor.split(".")
            for count in range(1, len(parts) + 1):
                inside = ".".join(parts[:count])
                yield from ((inside, name) for name in self._bound.get(inside, {}))


def _bound(source: bytes) -> Mapping[str, list[tuple[ast.stmt, str]]]:
    """The statements of a file, with their text, by each name that one binds or changes."""
    lines = lines_of(source)
    bound: dict[str, list[tuple[ast.stmt, str]]] = {}
    for statement in ast.parse(source).body:
        begin = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", []))])
        text = "\n".join(line.rstrip() for line in lines[begin - 1 : statement.end_lineno])
        for name in _names(statement):
            bound.setdefault(name, []).append((statement, text))
    return bound


def _names(statement: ast.stmt) -> set[str]:
    """Names that a statement at the top of a file may bind, `*` for any; and those whose attributes it sets."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Import | ast.ImportFrom):
            found |= _names(node)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            inner: ast.AST = node
            while isinstance(inner, ast.Attribute | ast.Subscript):
                inner = inner.value
            found |= {inner.id} if isinstance(inner, ast.Name) else set()
    return found
