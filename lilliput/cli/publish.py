"""The `publish` command: releases of a trained run, the check of a published folder, and its upload."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lilliput.base.errors import LilliputError
from lilliput.cli.options import (
    ItemsOption,
    JsonOption,
    OutOption,
    SetOption,
    ShrinkOption,
    SourceOption,
    TargetArgument,
    TrustOption,
)
from lilliput.cli.resolve import resolve
from lilliput.cli.run import interruptible, say
from lilliput.cli.show import console, show_release
from lilliput.cli.without_effect import refuse_without_effect

app = typer.Typer()


@app.command()
def publish(
    recipe: TargetArgument,
    out: OutOption = None,
    overrides: SetOption = [],  # noqa: B006, typer reads it
    sources: SourceOption = [],  # noqa: B006
    shrink: ShrinkOption = False,
    trust_code: TrustOption = False,
    eval_data: ItemsOption = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="hf,gguf,int8",
            help="Forms of the releases: hf for transformers, gguf for llama.cpp and Ollama, int8 for Lilliput itself.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check a published folder, or those of a run, against their records instead."),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Show what would be uploaded to the hub of a published folder."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --push: upload it.")] = False,
    private: Annotated[bool, typer.Option("--private", help="With --push: to a private repository.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Export, check, evaluate and describe the releases of a trained run. Never trains."""
    from lilliput.evals.question_files import question_source
    from lilliput.run import pipeline

    if push is None:
        refuse_without_effect({"--yes": yes, "--private": private}, "without --push", "give --push OWNER/NAME too")
    if not verify:
        refuse_without_effect({"--json": as_json}, "without --verify", "give --verify too")
    if verify or push is not None:
        other = "--verify" if verify else "--push"
        given = {"--set": overrides, "--source": sources, "--shrink": shrink}
        given |= {"--eval-data": eval_data, "--format": formats}
        refuse_without_effect(given, f"with {other}, which reads what is published", f"publish first, without {other}")
        folders = _published(Path(recipe), out, trust_code)
        if push is not None and len(folders) > 1:
            raise LilliputError(
                f"the run has {len(folders)} releases",
                where="--push",
                hint=f"give the folder of one: {' or '.join(map(str, folders))}",
            )
        _verify(folders, as_json)
        if push is not None:
            _push(folders[0], push, yes=yes, private=private)
        return
    target = resolve(recipe, out=out, overrides=overrides, sources=sources, shrunk=shrink, trust_code=trust_code)
    if formats is not None:
        target = target.with_formats(formats)
    with interruptible():
        releases = pipeline.publish(target.recipe, target.folder, console, question_source(eval_data), target.command)
    for release in releases:
        show_release(release, target.folder)


def _published(name: Path, out: Path | None, trust_code: bool) -> list[Path]:
    """The folder of a release, or all releases of a run."""
    from lilliput.base.run_folder import no_run
    from lilliput.cli.trust import meet
    from lilliput.publish.releases import folder_named, releases

    folder = out or folder_named(name)
    if not (folder / "recipe.json").is_file():
        if folder.is_dir() and folder.resolve().parent.name == "releases":
            run = folder.resolve().parents[1]
            if (run / "recipe.json").is_file():
                meet(run, trusted=trust_code)
        return [folder]
    meet(folder, trusted=trust_code)
    found = releases(folder)
    if not found:
        raise (
            no_run(folder)
            if not (folder / "run.json").is_file()
            else LilliputError(
                "the run has released nothing", where=str(folder), hint=f"publish it first: lilliput publish {folder}"
            )
        )
    return found


def _verify(folders: list[Path], as_json: bool) -> None:
    from lilliput.run.verify_release import verify_release

    found = [verify_release(folder) for folder in folders]
    if as_json:
        print(json.dumps([one.plain() for one in found], indent=2))
        return
    for one in found:
        say(str(one))
        for line in one.added:
            say(f"  no record has the figures of {line}")


def _push(folder: Path, name: str, *, yes: bool, private: bool) -> None:
    from lilliput.publish.push import planned, upload

    push = planned(folder, name)
    for line in push.lines():
        say(line)
    if not yes:
        say("nothing was uploaded; --yes uploads it")
        return
    with console.status(f"uploading to {name}"):
        address = upload(push, private=private)
    say(f"uploaded: {address}")
