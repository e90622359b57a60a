"""The `serve` command: a model behind OpenAI's API, for many users at the same time."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lilliput.base.errors import LilliputError, MachineError, reading
from lilliput.base.terminal import Terminal, visible
from lilliput.cli.model_argument import explain, find_model
from lilliput.cli.options import (
    DeviceOption,
    DtypeOption,
    ModelArgument,
    RunOption,
    StateDtypeOption,
    TrustOption,
    expanded,
)
from lilliput.cli.show import console

if TYPE_CHECKING:
    from lilliput.publish.loaded_model import LoadedModel

app = typer.Typer()
KEY_VARIABLE = "LILLIPUT_API_KEY"
LEAST_KEY = 16
"""Characters of a key, so that it is not guessed."""
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@app.command()
def serve(
    model: ModelArgument,
    host: Annotated[str, typer.Option(help="Address to listen at; one that others reach needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any that is free.")] = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; its folder's by default.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Answers written at the same time, as many as memory has room for.")
    ] = None,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; further ones get status 429.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take, waiting included.")] = 300.0,
    keep_states: Annotated[
        str, typer.Option(metavar="BYTES", help="States kept so that a conversation is not read again; 0 for none.")
    ] = "256MiB",
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"A file with the key that clients send; {KEY_VARIABLE} otherwise.", callback=expanded
        ),
    ] = None,
    allow_origin: Annotated[
        list[str], typer.Option(metavar="URL", help="A site whose pages may ask this server; * for any.")
    ] = [],  # noqa: B006, typer reads it
    out: RunOption = None,
    trust_code: TrustOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "fp32",
    state_dtype: StateDtypeOption = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile first, for fifteen seconds or so.")] = False,
) -> None:
    """Serve a model with OpenAI's API: chat and completions, streamed or whole. Ctrl-C stops it."""
    if missing := [package for package in ("starlette", "uvicorn") if find_spec(package) is None]:
        raise MachineError(
            f"{' and '.join(missing)}: not installed", where="serve", hint="pip install 'lilliput[serve]'"
        )
    from lilliput.serve.app import Access
    from lilliput.serve.guard import LOCAL_NAMES, is_loopback
    from lilliput.serve.server import listen
    from lilliput.serve.serving import Settings, serving

    key, is_local = _key(api_key_file), is_loopback(host)
    if not is_local and key is None:
        raise LilliputError(
            "a server that others can reach needs a key",
            where=f"--host {host}",
            hint=f"put a long random text into a file and give --api-key-file FILE, or set {KEY_VARIABLE}",
        )
    kept = _bytes(keep_states)
    with listen(host, port) as listener:
        published, folder, device = _opened(str(model), out, device, dtype, trust_code=trust_code)
        settings = Settings(
            name=name or folder.name,
            device=device,
            dtype=dtype,
            state_dtype=state_dtype,
            compile=compile,
            rows=rows,
            queue=queue,
            seconds=timeout,
            keep_bytes=kept,
        )
        hosts = {*LOCAL_NAMES, host} if is_local and key is None else None
        log = Terminal(stderr=True, soft_wrap=True)
        access = Access(key=key, hosts=hosts, origins=tuple(allow_origin))
        made = serving(published, settings, access, log=lambda line: log.print(visible(line), style="dim"))
        console.print(f"{_url(host, listener.getsockname()[1])} serves {made.about}. Ctrl-C stops it.", soft_wrap=True)
        made.server.run_until_stopped(listener)


def _opened(
    name: str, out: Path | None, device: str, dtype: str, *, trust_code: bool
) -> "tuple[LoadedModel, Path, str]":
    """Return the model that a name stands for, its folder, and the device that it is for."""
    from lilliput.publish.load import load
    from lilliput.train.machine import inference_device

    device = inference_device(device)
    found = find_model(name, out, trust_code=trust_code)
    if isinstance(found, Path):
        return load(found, int8=dtype == "int8"), found, device
    explain(found)
    return found.published, found.folder, device


def _key(file: Path | None) -> str | None:
    """Return the key that clients have to send, if there is one."""
    key, where = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
    if file is not None:
        where = str(file)
        with reading(where, "give a file with one line of text"):
            key = file.read_text(encoding="utf-8").strip()
    if key is not None and not (len(key) >= LEAST_KEY and key.isascii() and key.isprintable() and " " not in key):
        raise LilliputError(
            f"the key has {len(key)} characters, or some that a header cannot have",
            where=where,
            hint=f"take at least {LEAST_KEY} letters and digits: openssl rand -hex 32",
        )
    return key


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d{1,12})\s*([KMG]?)(i?B)?", text.strip(), flags=re.IGNORECASE)
    if found is None:
        raise LilliputError(f"{text!r:.40} is no number of bytes", where="--keep-states", hint="give 256MiB, 2GiB or 0")
    return int(found[1]) * UNITS[found[2].upper()]


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
