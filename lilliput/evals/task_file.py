"""An evaluation task of one's own: a YAML file as lm-evaluation-harness has it, read without running anything.

The harness's own loader imports Python where a file says `!function`, fetches metrics that it does not know, and
renders templates without limits. A task is data to those who pass it on, so all of that is refused unless it is asked
for.
"""

import difflib
import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lilliput.base.errors import DataError, reading
from lilliput.base.untrusted import check_size, shown

METRICS = ("acc", "acc_norm", "acc_bytes")
"""Shares of right answers: what chance is, and a standard error, are known of these."""
KINDS = ("multiple_choice",)
KEYS = (
    *("task", "task_alias", "include", "output_type", "metric_list", "metadata", "tag", "description"),
    *("dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "test_split"),
    *("doc_to_text", "doc_to_target", "doc_to_choice", "target_delimiter"),
    *("num_fewshot", "fewshot_split", "fewshot_delimiter", "fewshot_config"),
    *("should_decontaminate", "doc_to_decontamination_query"),
)
TRUSTED_KEYS = ("process_docs",)
"""Keys whose values are Python code, not data."""
BUILDERS = ("json", "csv", "parquet", "arrow", "text")
"""Readers of local files, by the names that `dataset_path` has for them."""
HINT = "write it in the format of lm-evaluation-harness; docs/guides/evaluate.md has an example"


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """A task that was read and found whole."""

    path: Path
    name: str
    display: str
    """The name in tables."""
    metrics: tuple[str, ...]
    config: dict[str, Any]
    """Configuration for the harness, with absolute paths."""
    trusted: bool
    """True if Python that it names may run."""


def read_task(path: Path, *, trusted: bool, work: Path) -> TaskFile:
    """Read a task.

    Args:
        path: the YAML file; files that it names are looked for beside it.
        trusted: whether Python that it names may run: tags `!function`, templates without a sandbox.
        work: where datasets keep what they make of local files.

    Raises:
        DataError: there is no such file, it is no task, names Python, or lacks something.
    """
    if not path.is_file() or path.suffix not in (".yaml", ".yml"):
        raise DataError(
            f"{path} is not a {'YAML file' if path.is_file() else 'file'}",
            where="--task",
            hint="give a .yaml file of your own; tasks of a suite are named with --tasks NAME, as in --tasks piqa",
        )
    with reading(path, HINT, "the task cannot be read", kind=DataError):
        config = _trusted(path) if trusted else _plain(path, ())
    _check_keys(config, path, trusted)
    if config.get("output_type", "multiple_choice") not in KINDS:
        raise DataError(
            f"output_type is {shown(config['output_type'])}",
            where=str(path),
            hint="give `output_type: multiple_choice`; a text's bits per byte are measured with --text",
        )
    name = config.get("task", path.stem)
    if not isinstance(name, str) or not name:
        raise DataError(f"task is {shown(name)}", where=str(path), hint="give `task:` a name")
    metrics = _metrics(config.get("metric_list"), path)
    settings = {
        "task": name,
        "output_type": "multiple_choice",
        "num_fewshot": 0,
        **{key: value for key, value in config.items() if key not in ("tag", "include")},
        "metric_list": [{"metric": one, "aggregation": "mean", "higher_is_better": True} for one in metrics],
    }
    for key in ("dataset_path", "doc_to_text", "doc_to_target", "doc_to_choice"):
        if key not in settings:
            raise DataError(f"there is no {key}", where=str(path), hint=HINT)
    if not (settings.get("test_split") or settings.get("validation_split")):
        raise DataError("there is no test_split", where=str(path), hint="name one: `test_split: test`")
    return TaskFile(
        path=path,
        name=name,
        display=str(config.get("task_alias") or name),
        metrics=metrics,
        config=settings | _files(settings, path, work),
        trusted=trusted,
    )


def _plain(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The settings of a file and of those that it includes, of plain values alone."""

    class Loader(yaml.SafeLoader):
        """Refuses what is Python."""

    def refuse(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        raise DataError(
            f"{node.tag} {shown(getattr(node, 'value', ''))} is Python code that would run",
            where=f"{path}, line {node.start_mark.line + 1}",
            hint="read it first, then allow it with --trust-remote-code; or write a template: `{{column}}`",
        )

    Loader.add_constructor("!function", refuse)
    check_size(path, "config_bytes", DataError)
    config = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise DataError("the file is not a mapping of settings", where=str(path), hint=HINT)
    included = config.pop("include", ())
    below: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        other = (path.parent / name).resolve()
        if other in (*above, path.resolve()):
            raise DataError(f"it includes itself through {name}", where=str(path), hint="remove one `include:`")
        below |= _plain(other, (*above, path.resolve()))
    return below | config


def _trusted(path: Path) -> dict[str, Any]:
    """The same by the harness's own loader, which runs what a file names."""
    from lm_eval.tasks._yaml_loader import load_yaml

    return load_yaml(path)


def _check_keys(config: dict[str, Any], path: Path, trusted: bool) -> None:
    known = (*KEYS, *TRUSTED_KEYS) if trusted else KEYS
    for key in config:
        if key in TRUSTED_KEYS and not trusted:
            raise DataError(
                f"{key} is Python code that would run", where=str(path), hint="allow it with --trust-remote-code"
            )
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3) or sorted(known)
            raise DataError(f"there is no setting {key!r}", where=str(path), hint=f"nearest names: {', '.join(near)}")


def _metrics(given: Any, path: Path) -> tuple[str, ...]:
    """The metrics of a task; both shares where it names none, as the harness has it."""
    if given is None:
        return ("acc", "acc_norm")
    entries = given if isinstance(given, list) else []
    names = [entry.get("metric") if isinstance(entry, dict) else None for entry in entries]
    if not names or any(entry.get("aggregation", "mean") != "mean" for entry in entries if isinstance(entry, dict)):
        raise DataError(f"metric_list is {shown(given)}", where=str(path), hint="give e.g. `- metric: acc` below it")
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(str(name), METRICS, n=3) or METRICS
            raise DataError(f"there is no metric {shown(name)}", where=str(path), hint=f"nearest: {', '.join(near)}")
    return tuple(dict.fromkeys(map(str, names)))


def _files(config: dict[str, Any], path: Path, work: Path) -> dict[str, Any]:
    """The dataset's settings with files beside the YAML file found."""
    given, kwargs = config["dataset_path"], dict(config.get("dataset_kwargs") or {})
    if not isinstance(given, str):
        raise DataError(f"dataset_path is {shown(given)}", where=str(path), hint=HINT)
    if given not in BUILDERS:
        beside = path.parent / given
        if not beside.is_dir() and given.count("/") != 1:  # another reader of datasets, some of which unpickle
            near = difflib.get_close_matches(given, BUILDERS, n=3) or BUILDERS
            raise DataError(
                f"dataset_path is {shown(given)}, which is neither a folder beside the file nor owner/name on the hub",
                where=str(path),
                hint=f"readers of local files: {', '.join(near)}",
            )
        return {"dataset_path": str(beside.resolve())} if beside.is_dir() else {}
    files = kwargs.get("data_files")
    if not files:
        raise DataError(
            f"dataset_path is {given}, and no data_files are named",
            where=str(path),
            hint="name them below dataset_kwargs: `data_files: {test: questions.jsonl}`",
        )
    kwargs["data_files"] = (
        {split: _found(one, path) for split, one in files.items()} if isinstance(files, dict) else _found(files, path)
    )
    return {"dataset_kwargs": kwargs | {"cache_dir": str(work.resolve() / "datasets")}}


def _found(name: Any, path: Path) -> Any:
    if isinstance(name, list):
        return [_found(one, path) for one in name]
    if not isinstance(name, str):
        raise DataError(f"a data file is {shown(name)}", where=str(path), hint="give a path")
    file = path.parent / name
    if file.is_file():
        return glob.escape(str(file.resolve()))
    if glob.has_magic(name) and (matched := sorted(glob.glob(name, root_dir=path.parent, recursive=True))):
        return [glob.escape(str((path.parent / one).resolve())) for one in matched]
    near = difflib.get_close_matches(name, [one.name for one in path.parent.iterdir()], n=3)
    raise DataError(
        f"there is no file {shown(name)}",
        where=str(path),
        hint=f"nearest names: {', '.join(near)}" if near else "give its path, relative to the YAML file's folder",
    )
