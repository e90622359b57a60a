"""`--format hf,gguf,int8`: files beside the release, in its hashes, record and card; nothing is evaluated again."""

import io
from dataclasses import replace

import pytest
import tiny
from rich.console import Console
from typer.testing import CliRunner

from lilliput.base.errors import ExportError, RecipeError
from lilliput.base.files import read_json, sha256
from lilliput.base.spec import to_plain
from lilliput.cli import app
from lilliput.publish.card.travelling import read_record
from lilliput.publish.export import CARD_FILE
from lilliput.publish.load import verified
from lilliput.publish.push import planned
from lilliput.recipe import Release
from lilliput.run.pipeline import publish, run
from lilliput.run.target import Target
from lilliput.run.verify_release import verify_release
from lilliput.train.machine import Machine

pytestmark = pytest.mark.slow
NAME = "tiny-instruct"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    recipe = tiny.recipe(folder / "data", tiny.SPECS["gqa"])
    entries = (one for one in recipe.timeline if not isinstance(one, Release) or one.name == NAME)
    recipe = replace(recipe, timeline=tuple(entries))
    run(recipe, folder / "run", Machine(device="cpu", precision="fp32", threads=1), Console(file=io.StringIO()))
    return Target(recipe=recipe, folder=folder / "run", command=None)


def published(target):
    publish(target.recipe, target.folder, Console(file=io.StringIO()))
    return target.folder / "releases" / NAME


def test_files_are_made_recorded_and_kept(done):
    evaluated = read_json(done.folder / "parts" / f"evals.{NAME}.json")
    weights = sha256(done.folder / "releases" / NAME / "model.safetensors")
    target = done.with_formats("hf, gguf")
    release = published(target)
    names = {f"{NAME}-F16.gguf", f"{NAME}-Q8_0.gguf", "Modelfile"}
    assert names <= verified(release)["files"].keys() and sha256(release / "model.safetensors") == weights
    assert names <= {path.name for path in planned(release, "me/tiny").files}
    assert read_json(done.folder / "parts" / f"evals.{NAME}.json") == evaluated, "the weights are those of before"
    files = read_record(release)["release"]["gguf"]
    card = (release / CARD_FILE).read_text()
    for file in files:
        assert sha256(release / file["file"]) == file["sha256"] and file["parity"] < 1e-6
        assert f"| `{file['file']}` | {file['bytes']:,} | `{file['sha256']}` |" in card
    assert f"llama-cli -m {NAME}-F16.gguf --jinja\nollama create {NAME} -f Modelfile" in card
    assert 'formats=("hf", "gguf")' in card, "the quoted recipe says it"
    assert verify_release(release).figures > 150
    assert "LICENSE" not in (release / "Modelfile").read_text()
    before = {path.name: path.stat().st_mtime_ns for path in release.iterdir() if path.name in names}
    assert published(target) == release
    assert before == {name: (release / name).stat().st_mtime_ns for name in before}, "nothing is made again"
    with open(release / f"{NAME}-Q8_0.gguf", "ab") as file:
        file.write(b"!")
    published(target)
    assert sha256(release / f"{NAME}-Q8_0.gguf") == files[1]["sha256"], "what was damaged is made again"
    (release / CARD_FILE).write_text(card.replace(f"{files[0]['bytes']:,}", "1,234"))
    with pytest.raises(ExportError, match="1,234 where the record has"):
        verify_release(release)
    published(done.with_formats("hf"))
    assert not names & {path.name for path in release.iterdir()}


def test_weights_of_8_bits_are_recorded_and_described(done):
    (done.folder / "releases" / NAME / CARD_FILE).unlink()
    release = published(done.with_formats("hf,int8"))
    [file] = read_record(release)["release"]["int8"]
    assert verified(release)["files"]["int8.safetensors"] == sha256(release / "int8.safetensors") == file["sha256"]
    assert "int8.safetensors" in {path.name for path in planned(release, "me/tiny").files}
    card = (release / CARD_FILE).read_text()
    row = f"| `int8.safetensors` | {file['bytes']:,} | `{file['sha256']}` | {file['rounding']:.1e} of the largest |"
    assert row in card
    assert f'model = lilliput.load("{NAME}", dtype="int8")' in card and "In llama.cpp" not in card
    assert verify_release(release).figures > 150
    (release / CARD_FILE).write_text(card.replace(f"{file['bytes']:,}", "1,234"))
    with pytest.raises(ExportError, match="1,234 where the record has"):
        verify_release(release)
    (release / CARD_FILE).write_text(card)
    published(done.with_formats("hf"))
    assert not (release / "int8.safetensors").exists()


def test_formats_that_cannot_be_are_refused(done, tmp_path):
    with pytest.raises(RecipeError, match="there is no format 'guff'") as raised:
        done.with_formats("hf,guff")
    assert raised.value.hint == "there are: hf, gguf, int8" and raised.value.where == "--format hf,guff"
    with pytest.raises(RecipeError, match="a release cannot be gguf alone"):
        done.with_formats("gguf")
    recurrent = tiny.recipe(tmp_path / "data", tiny.SPECS["hgrn2"])
    with pytest.raises(ExportError, match="llama.cpp runs no model of HGRN2Format"):
        Target(recipe=recurrent, folder=tmp_path, command=None).with_formats("hf,gguf")
    release = next(entry for entry in recurrent.timeline if isinstance(entry, Release))
    with pytest.raises(ExportError, match="llama.cpp runs no model"):
        replace(release, formats=("hf", "gguf"))
    assert "formats" not in to_plain(release), "releases of before have the hashes of before"
    for other in ("--verify", "--push"):
        words = ["publish", str(done.folder), "--format", "hf,gguf", other, *(["me/x"] if other == "--push" else [])]
        result = CliRunner().invoke(app, words)
        assert result.exit_code and f"--format has no effect with {other}" in str(result.exception or result.output)
