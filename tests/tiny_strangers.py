"""Run folders as a stranger may send them: good ones with random damage and malice, and every command on them.

Whatever is in such a folder: nothing outside of it changes, nothing of somebody's own in it goes, no code of it runs,
no network is asked, no command takes 2 GB or forever, and what goes wrong is told in three parts.
"""

import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import tiny_commands
from tiny_commands import Finished, Running, contents, lilliput

from lilliput.base.files import sha256, with_checksum
from lilliput.base.own_code import digest_of

OWN = "ten years of work"
MEMORY = 2e9
"""Bytes that a command may take at most."""
SECONDS = 90
GRUESOME = [
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 100_000,
    "../../own",
    "../../own/thesis.tex",
    "/etc/hostname",
    "a\u0000b",
    "\x1b]0;owned\x07\x1b[31m",
    "[red]x[/blue] :boom:",
    "![x](http://127.0.0.1/x.png)<script>alert(1)</script>|\n---\n",
    "evil:Spec",
    "lilliput.__main__:main",
    "\ud800",
    [],
    {},
    [[[]]],
    {"type": "evil:Spec"},
    {"type": "lilliput.publish.pretrained:PretrainedModel", "checkpoint": "owner/name", "revision": None},
    {"type": "lilliput.recipe:Recipe"},
]
TEMPLATES = [
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for",
    "{{ raise_exception('no') }}",
]
COMMANDS = [
    "report run",
    "plan run",
    "plan run --set seed=3",
    "runs .",
    "runs run --json",
    "compare run good",
    "clean run",
    "clean run --yes",
    "clean run --shards --yes",
    "clean run --from tokenizer --yes",
    "clean run --from releases/tiny-base --yes",
    "tokenizer run",
    "data run",
    "data run --verify",
    "train run",
    "publish run",
    "run run",
    "eval run",
    "eval run/releases/tiny-base --text texts/a.jsonl --limit 3",
    "eval run/releases/tiny-instruct --text texts/a.jsonl --limit 3",
    "generate run --prompt small --max-new-tokens 4",
    "generate run/releases/tiny-base --prompt small --max-new-tokens 4",
    "generate run/releases/tiny-instruct --prompt small --max-new-tokens 4 --json",
    "score run --context small --choice models --choice [/x]",
    "sweep run --over timeline.pretrain.optimizer.lr=1e-3,1e-2 --out swept",
    "tokenizer mine.py --out run",
    "data mine.py --out run",
]

RECIPE = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from pathlib import Path
import tiny
from lilliput.data.corpora.files import TextFiles
here = Path({folder!r})
recipe = tiny.recipe(here / "scratch", tiny.{spec})
recipe = replace(recipe, corpora=recipe.corpora | {{"texts": TextFiles(paths=(str(here / "texts"),))}})
"""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A command on a folder, and what is wrong with how it ended."""

    command: str
    changes: list[str]
    finished: Finished
    wrong: list[str]


class Strangers:
    """A workshop with good runs, which makes bad ones of them.

    Args:
        folder: a new one.
        specs: names of models in `tiny`, one good run each; those without attention are published with code.
    """

    def __init__(self, folder: Path, specs: tuple[str, ...] = ("GQA_SPEC", "HGRN2_SPEC")):
        self.folder = folder
        self.shop = tiny_commands.workshop(folder)
        self.goods = []
        for spec in specs:
            recipe = self.shop / f"{spec.lower()}.py"
            recipe.write_text(RECIPE.format(tests=str(Path(__file__).parent), folder=str(folder), spec=spec))
            self.goods.append(self.shop / f"good-{spec.lower()}")
            lilliput("run", recipe.name, "--machine", "small.py", "--out", self.goods[-1], folder=self.shop)
        shutil.copytree(self.goods[0], self.shop / "good")
        self.own = self.shop / "own"
        self.own.mkdir()
        (self.own / "thesis.tex").write_text(OWN)
        (self.shop / "evil.py").write_text(self.evil())
        self.run = self.shop / "run"

    def evil(self) -> str:
        """Code of a stranger, which leaves a trace if it runs."""
        return f"from pathlib import Path\nPath({str(self.folder / 'ran')!r}).write_text('ran')\nclass Spec: pass\n"

    def tried(self, draw: Random, commands: int) -> list[Tried]:
        """Make a bad run and try some commands on it, one after the other."""
        for left in (self.run, self.shop / "swept"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(draw.choice(self.goods), self.run)
        changes = [self._changed(draw) for _ in range(draw.randint(1, 3))]
        own = [path for path in self.run.rglob("thesis.tex") if not path.is_symlink()]
        return [self._try(command, changes, own) for command in draw.sample(COMMANDS, commands)]

    def _try(self, command: str, changes: list[str], own: list[Path]) -> Tried:
        before = contents(self.own) | {"good": b"".join(contents(self.shop / "good").values())}
        traces = {name: self.folder / name for name in ("ran", "network")}
        running = Running(*command.split(), folder=self.shop, before=guarded(traces["network"]))
        finished = running.end(SECONDS, kill=True)
        wrong = [f"code of a stranger: {name}" for name, trace in traces.items() if trace.exists()]
        for trace in traces.values():
            trace.unlink(missing_ok=True)
        if contents(self.own) | {"good": b"".join(contents(self.shop / "good").values())} != before:
            wrong.append("something outside of the run has changed")
        wrong += [f"{path} is gone" for path in own if not path.exists() or path.read_text() != OWN]
        if finished.code not in (0, 1, 2):
            wrong.append(f"it ended with {finished.code}")
        if "Traceback" in finished.err + finished.out or "panicked" in finished.err:
            wrong.append("a traceback")
        if finished.code == 1 and not ("\n  where: " in finished.err and "\n  hint: " in finished.err):
            wrong.append("no error of three parts")
        if "\x1b" in finished.err + finished.out:
            wrong.append("an escape sequence reached the terminal")
        if finished.memory > MEMORY:
            wrong.append(f"it took {finished.memory / 1e9:.1f} GB")
        return Tried(command=command, changes=changes, finished=finished, wrong=wrong)

    def _changed(self, draw: Random) -> str:
        return draw.choice(CHANGES)(self, draw)

    def _files(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.run.rglob(pattern) if path.is_file() and not path.is_symlink())

    def change_value(self, draw: Random) -> str:
        """Another value somewhere in a JSON file, sealed again as somebody would who knows how."""
        file = draw.choice(self._files("*.json"))
        try:
            plain = json.loads(file.read_text())
        except (ValueError, RecursionError):
            return "nothing"
        is_sealed = isinstance(plain, dict) and "sha256" in plain and isinstance(plain["sha256"], str)
        if is_sealed:
            plain.pop("sha256")
        value, place = draw.choice(GRUESOME), "top"
        inner = plain
        while isinstance(inner, dict | list) and inner:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = draw.choice(keys)
            place = f"{place}.{key}"
            if not isinstance(inner[key], dict | list) or not inner[key] or draw.random() < 0.2:
                if draw.random() < 0.15:
                    del inner[key]
                    place += " is gone"
                elif isinstance(inner, dict) and draw.random() < 0.1 and isinstance(value, str):
                    inner[value] = inner.pop(key)
                else:
                    inner[key] = value
                break
            inner = inner[key]
        text = json.dumps(plain)
        if is_sealed:
            with suppress(UnicodeEncodeError):
                text = json.dumps(with_checksum(plain))
        file.write_text(text)
        return f"{file.relative_to(self.run)}: {place} = {value!r:.60}"

    def damage(self, draw: Random) -> str:
        """Other bytes in any file."""
        file = draw.choice(self._files("*"))
        data = bytearray(file.read_bytes())
        kind = draw.choice(["cut", "flip", "empty", "noise", "deep", "wrong"])
        match kind:
            case "cut":
                data = data[: draw.randrange(len(data) + 1)]
            case "flip":
                for _ in range(draw.randint(1, 8)) if data else ():
                    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            case "empty":
                data = bytearray()
            case "noise":
                data = bytearray(draw.randbytes(draw.randint(1, 2000)))
            case "deep":
                data = bytearray(b"[" * 100_000)
            case "wrong":
                data = bytearray(json.dumps(draw.choice(GRUESOME)).encode())
        file.write_bytes(data)
        return f"{file.relative_to(self.run)}: {kind}"

    def remove(self, draw: Random) -> str:
        """A file or a folder less."""
        path = draw.choice(sorted(path for path in self.run.rglob("*") if not path.is_symlink()))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return f"{path.relative_to(self.run)} is gone"

    def link(self, draw: Random) -> str:
        """A symbolic link out of the run in the place of something."""
        path = draw.choice(sorted(path for path in self.run.rglob("*") if not path.is_symlink()))
        is_folder = path.is_dir()
        shutil.rmtree(path) if is_folder else path.unlink()
        path.symlink_to(self.own if is_folder else self.own / "thesis.tex")
        return f"{path.relative_to(self.run)} is a link"

    def keep_own(self, draw: Random) -> str:
        """Somebody's own file in a folder of the run."""
        folder = draw.choice([self.run, *sorted(path for path in self.run.rglob("*") if path.is_dir())])
        if folder.is_symlink():
            return "nothing"
        (folder / "thesis.tex").write_text(OWN)
        return f"{folder.relative_to(self.run)}/thesis.tex is somebody's own"

    def bring_code(self, draw: Random) -> str:
        """Code in a model's folder, or beside the run, and a file that names it."""
        folder = draw.choice(sorted((self.run / "releases").glob("*")) or [self.run])
        name = draw.choice(["modeling_evil.py", "evil.py", "custom_generate/generate.py", "modeling_hgrn2_lm.py"])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(self.evil())
        entry = {"AutoConfig": "evil.Spec", "AutoModelForCausalLM": "modeling_evil.Spec"}
        if draw.random() < 0.6 and (folder / "config.json").is_file():
            (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": entry}))
        if draw.random() < 0.5:
            (folder / "lilliput.json").unlink(missing_ok=True)
        return f"{folder.relative_to(self.run)}/{name}"

    def bring_parts(self, draw: Random) -> str:
        """Code as a run keeps it, hashes and all, which its recipe needs; sometimes a name leads elsewhere."""
        name = draw.choice(["evil.py", "evil.py", "evil.py", "../evil.py", "/evil.py", "own/../evil.py"])
        hashes = {"evil.py": sha256(self.shop / "evil.py")} | {name: sha256(self.shop / "evil.py")}
        folder = self.run / "code" / digest_of("evil.py", hashes)[:16]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evil.py").unlink(missing_ok=True)  # of an earlier change
        match draw.choice(["file", "file", "link", "pipe", "nothing"]):
            case "file":
                shutil.copy(self.shop / "evil.py", folder)
            case "link":
                (folder / "evil.py").symlink_to(self.shop / "evil.py")
            case "pipe":
                os.mkfifo(folder / "evil.py")
        (self.run / "code.json").write_text(json.dumps(with_checksum({"recipe": "evil.py", "files": hashes})))
        with suppress(ValueError, RecursionError, OSError, KeyError, TypeError, IndexError):
            plain = json.loads((self.run / "recipe.json").read_text())
            inner, key = draw.choice(
                [(plain, "model"), (plain["timeline"][0], "schedule"), (plain["corpora"], "texts")]
            )
            inner[key] = {"type": "evil:Spec"}
            (self.run / "recipe.json").write_text(json.dumps(plain))
        return f"code/{name}"

    def odd_tokenizer(self, draw: Random) -> str:
        """A tokenizer that pads, cuts or blows up, in a folder that nobody released."""
        file = draw.choice(self._files("tokenizer.json") or self._files("*.json"))
        plain = json.loads(file.read_text())
        if not isinstance(plain, dict):
            return "nothing"
        key, value = draw.choice(
            [
                (
                    "padding",
                    {
                        "strategy": {"Fixed": 2**40},
                        "direction": "Right",
                        "pad_to_multiple_of": None,
                        "pad_id": 0,
                        "pad_type_id": 0,
                        "pad_token": "x",
                    },
                ),
                ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1_000_000}),
                (
                    "normalizer",
                    {
                        "type": "Sequence",
                        "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40,
                    },
                ),
                (
                    "pre_tokenizer",
                    {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
                ),
                (
                    "pre_tokenizer",
                    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
                ),
            ]
        )
        file.write_text(json.dumps(plain | {key: value}))
        if draw.random() < 0.7:
            (file.parent / "lilliput.json").unlink(missing_ok=True)
        return f"{file.relative_to(self.run)}: {key}"

    def odd_template(self, draw: Random) -> str:
        """A chat template that loops, doubles or breaks out."""
        files = self._files("chat_template.jinja")
        if not files:
            return "nothing"
        file, template = draw.choice(files), draw.choice(TEMPLATES)
        file.write_text(template)
        (file.parent / "lilliput.json").unlink(missing_ok=True)
        return f"{file.relative_to(self.run)}: {template}"

    def large_config(self, draw: Random) -> str:
        """A config of a model that nobody could hold."""
        files = self._files("config.json")
        if not files:
            return "nothing"
        file = draw.choice(files)
        key = draw.choice(["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "head_dim"])
        try:
            file.write_text(
                json.dumps(json.loads(file.read_text()) | {key: draw.choice([10_000_000, 2**40, 0, -1, 1.5])})
            )
        except (ValueError, TypeError):
            return "nothing"
        (file.parent / "lilliput.json").unlink(missing_ok=True)
        return f"{file.relative_to(self.run)}: {key}"


CHANGES: list[Callable[[Strangers, Random], str]] = [
    *[Strangers.change_value] * 8,
    *[Strangers.damage] * 3,
    Strangers.remove,
    Strangers.link,
    Strangers.keep_own,
    Strangers.bring_code,
    Strangers.bring_parts,
    Strangers.odd_tokenizer,
    Strangers.odd_template,
    Strangers.large_config,
]


@dataclass(frozen=True)
class guarded:
    """Before a command: every attempt to reach a network leaves a trace and fails."""

    trace: Path

    def __call__(self) -> None:
        def refuse(kind: str) -> Callable[..., Any]:
            def refused(*arguments: Any, **named: Any) -> Any:
                self.trace.write_text(f"{kind} {arguments!r}")
                raise OSError(f"{kind}: there is no network")

            return refused

        connect = socket.socket.connect

        def local_only(self_: socket.socket, address: Any) -> None:
            if self_.family == socket.AF_UNIX:
                connect(self_, address)
                return
            refuse("connect")(address)

        socket.socket.connect = local_only  # type: ignore[method-assign]
        socket.getaddrinfo = refuse("getaddrinfo")
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ.pop(name, None)
