"""Checks a GGUF file before it is published: read back, it computes what the folder does that it was made from.

Both are run by the native forward pass in fp32. The folder's weights are rounded as the file rounds them, so that what
is left is arithmetic: a name, an order of rows or a hyperparameter that is wrong is far beyond the tolerance.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lilliput.base.errors import ExportError
from lilliput.model import LanguageModel
from lilliput.publish.gguf.file_types import FileType, as_stored
from lilliput.publish.gguf.read import read_gguf
from lilliput.publish.parity import TOLERANCE
from lilliput.publish.pretrained import read_architecture
from lilliput.publish.weights import read_weights


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """Differences of a file's logits, over the largest logit."""

    parity: float
    """To those of the folder's weights, rounded alike: arithmetic alone."""
    rounding: float
    """To those of the folder's weights as they are: what rounding does."""


def check_gguf(path: Path, folder: Path, file_type: FileType, *, tokens: Tensor) -> FileReport:
    """Compare a GGUF file with the folder that it was made from.

    Args:
        path: the file.
        folder: as `write_gguf` was given it.
        file_type: what the file's matrices are rounded to.
        tokens: rows of real text [B, L].

    Raises:
        ExportError: the logits differ, or the file cannot be read.
    """
    read = read_architecture(folder)
    native = read_weights(folder, read.shape, read.layout).eval()
    expected = _logits(native, tokens)
    native.load_state_dict(as_stored(native.state_dict(), file_type))
    rounded, found = _logits(native, tokens), _logits(read_gguf(path), tokens)
    report = FileReport(parity=_difference(found, rounded), rounding=_difference(found, expected))
    if not report.parity <= TOLERANCE:
        raise ExportError(
            f"logits of the GGUF file differ from those of the release by {report.parity:.3g} of the largest; "
            f"{TOLERANCE:.3g} is allowed",
            where=str(path),
            hint="the file does not say what the model is: publish it as hf alone, and report this",
        )
    return report


@torch.no_grad()
def _logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    return model(tokens.detach().to("cpu", torch.long))


def _difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()
