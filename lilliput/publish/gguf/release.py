"""Adds GGUF files to a release: `<name>-F16.gguf`, `<name>-Q8_0.gguf`, and a Modelfile for Ollama."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from lilliput.base.files import sha256, write_text
from lilliput.publish.export import CHAT_TEMPLATE_FILE, Generation, record_files
from lilliput.publish.gguf.architectures import architecture_for
from lilliput.publish.gguf.check import check_gguf
from lilliput.publish.gguf.file_types import FILE_TYPES, FileType, library
from lilliput.publish.gguf.modelfile import MODELFILE, modelfile
from lilliput.publish.gguf.write import About, stop_ids, write_gguf
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.publish.pretrained import read_architecture
from lilliput.tokenizer.bpe import load_tokenizer


def gguf_file(name: str, file_type: FileType) -> str:
    """Name of a file, as the hub expects it."""
    return f"{name}-{file_type}.gguf"


def check_publishable(layout: HFFormat) -> None:
    """Refuse a layout that no GGUF file can have, and a machine without the package `gguf`.

    Raises:
        ExportError: it is one.
    """
    architecture_for(layout)
    library()


def add_gguf(folder: Path, about: About, generation: Generation, *, tokens: Tensor) -> list[dict[str, Any]]:
    """Write and check the files of a release, and record them with its others.

    Args:
        folder: what `export` wrote.
        about: what the files say for people; its name is that of the files.
        generation: default settings of the release.
        tokens: rows of real text [B, L], by which files and folder are compared.

    Returns:
        of each file its name, type, bytes, hash, and differences of its logits.

    Raises:
        ExportError: llama.cpp has no such architecture or tokenizer, or a file does not compute what the release does.
    """
    records = []
    for file_type in FILE_TYPES:
        path = folder / gguf_file(about.name, file_type)
        write_gguf(folder, path, file_type, about)
        report = check_gguf(path, folder, file_type, tokens=tokens)
        facts = {"file": path.name, "type": file_type, "bytes": path.stat().st_size, "sha256": sha256(path)}
        records.append(facts | asdict(report))
    write_text(folder / MODELFILE, _modelfile(folder, about, generation))
    record_files(folder, [*(record["file"] for record in records), MODELFILE])
    return records


def _modelfile(folder: Path, about: About, generation: Generation) -> str:
    tokenizer = load_tokenizer(folder)
    return modelfile(
        gguf_file(about.name, FILE_TYPES[0]),
        generation=generation,
        context=read_architecture(folder).layout.context,
        stops=[token for one in stop_ids(folder) if (token := tokenizer.id_to_token(one))],
        is_chat=(folder / CHAT_TEMPLATE_FILE).is_file(),
        license=about.license,
    )
