"""Which files a recipe file is made of: itself, and the neighbors that it imports, and those that these import."""

import ast
from collections.abc import Iterator
from pathlib import Path

from lilliput.base.errors import RecipeError
from lilliput.base.limits import limit, raising
from lilliput.base.own_code import Code, is_library


def code_at(path: Path) -> Code:
    """A recipe or machine file that somebody typed, with its neighbors.

    Raises:
        RecipeError: there is no such file, one cannot be read or is no Python, or there is more than a limit.
    """
    if not path.is_file():
        raise RecipeError("the file does not exist", where=str(path), hint="check the path")
    if path.name.partition(".")[0] == "lilliput":
        raise RecipeError(
            "the file name is taken by a module of Lilliput", where=str(path), hint="give the file another name"
        )
    folder = path.absolute().parent
    files = {path.name: _read(path)}
    left = [path.name]
    while left:
        name = left.pop()
        for module in _imports(files[name], name, folder):
            for found in _files_of(folder, module):
                if found not in files:
                    files[found] = _read(folder / found)
                    left.append(found)
        if len(files) > limit("code_files"):
            what = f"the recipe is made of more than {limit('code_files'):,} files"
            raise RecipeError(what, where=str(path), hint=raising("code_files"))
    return Code(main=path.name, files=files, folder=folder)


def imported(node: ast.Import | ast.ImportFrom, file: str) -> Iterator[str]:
    """Full names of all that a statement of a file may import, from the folder of the recipe file on."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    package = file.split("/")[:-1]
    above = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*above, *([node.module] if node.module else [])])
    yield from ([module] if module else [])
    yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*")


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(limit("code_bytes") + 1)
    if len(data) > limit("code_bytes"):
        what = f"the file has more than {limit('code_bytes'):,} bytes"
        raise RecipeError(what, where=str(path), hint=raising("code_bytes"))
    return data


def _imports(source: bytes, name: str, folder: Path) -> Iterator[str]:
    """Full names of all that a file imports, at its top or in a function, and that may be beside it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"the file fails with {type(error).__name__}: {error}", where=str(folder / name), hint="fix the file"
        ) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node, name)


def _files_of(folder: Path, module: str) -> Iterator[str]:
    """The files that importing a module runs, below a folder, as far as they are there."""
    parts = module.split(".")
    if is_library(parts[0]):
        return
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        found = next((name for name in (f"{path}/__init__.py", f"{path}.py") if (folder / name).is_file()), None)
        if found:
            yield found
        if found == f"{path}.py":  # which has nothing below it
            return
