"""Adds a file of 8-bit weights to a release: rounded once, instead of whenever they are loaded."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from lilliput.base.errors import ExportError
from lilliput.base.files import sha256, write_bytes
from lilliput.model import LanguageModel
from lilliput.nn.decoding_copy import decoding_copy
from lilliput.publish.export import record_files
from lilliput.publish.int8.read import INT8_FILE
from lilliput.publish.load import load


def add_int8(folder: Path, *, tokens: Tensor) -> dict[str, Any]:
    """Write the 8-bit weights of a release, record the file with its others, and check it.

    Args:
        folder: what `export` wrote.
        tokens: rows of real text [B, L], by which file and folder are compared.

    Returns:
        name, bytes and hash of the file, and the difference that rounding makes: of logits, over the largest of them.

    Raises:
        ExportError: the file does not compute exactly what the folder's weights do once they are rounded.
    """
    model, path = load(folder).model, folder / INT8_FILE
    rounded = decoding_copy(model, int8=True)
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in rounded.state_dict().items()}))
    record_files(folder, [path.name])
    exact, expected = _logits(model, tokens), _logits(rounded, tokens)
    if not torch.equal(_logits(load(folder, int8=True).model, tokens), expected):
        raise ExportError(
            "logits of the 8-bit weights are not those of the release's weights, rounded when they are loaded",
            where=str(path),
            hint="publish it as hf alone, and report this",
        )
    rounding = ((expected - exact).abs().max() / exact.abs().max()).item()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path), "rounding": rounding}


@torch.no_grad()
def _logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    return model(tokens.detach().to("cpu", torch.long))
