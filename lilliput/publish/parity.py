"""Exported logits equal native logits, or nothing is published.

The folder is loaded the way its users load it, by transformers in a fresh process that cannot import lilliput and
keeps its module cache in a temporary folder, so that neither an earlier export nor this process can help it.
"""

import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lilliput.base.errors import ExportError
from lilliput.base.files import read_json
from lilliput.model import LanguageModel
from lilliput.publish import exported_logits
from lilliput.publish.export import RELEASE_FILE, Dtype, rounded_weights

TOLERANCE = 1e-4
"""Largest difference over the largest logit. Orders of fp32 summation make 0 to 5e-6, one bf16 rounding 4e-3."""
PADDING = 3
"""Columns of padding in the padded case."""
DECODED = 8
"""Single steps in the cached case."""


@dataclass(frozen=True, kw_only=True)
class CaseDifference:
    """Difference of exported and native logits in one way of reading the rows."""

    case: str
    """`full` rows, an `odd` length, a prefill and then steps with the `cached` state, `padded` on the left."""
    absolute: float
    """Largest difference of two logits."""
    relative: float
    """The same over the largest native logit."""


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Result of the parity check."""

    differences: tuple[CaseDifference, ...]
    tolerance: float

    @property
    def worst(self) -> CaseDifference:
        """The case that is furthest apart; one that is not a number is further than all."""
        return max(self.differences, key=lambda found: (math.isnan(found.relative), found.relative))


def check_parity(folder: Path, model: LanguageModel, *, tokens: Tensor, tolerance: float = TOLERANCE) -> ParityReport:
    """Compare a released folder with the native model, both with the released weights and fp32 arithmetic.

    Args:
        folder: what `export` wrote.
        model: the native model, on any device; its weights are rounded to the release's dtype for the comparison.
        tokens: rows of real text [B, L], at least 4 columns.
        tolerance: largest difference over the largest logit.

    Raises:
        ExportError: transformers cannot load the folder, or the logits differ.
    """
    assert tokens.dim() == 2 and tokens.shape[1] >= 4, "parity needs rows of at least 4 tokens"
    tokens = tokens.detach().to("cpu", torch.long)
    native = _native_logits(model, read_json(folder / RELEASE_FILE)["dtype"], tokens)
    exported = _exported_logits(folder, tokens)
    report = ParityReport(
        differences=tuple(_difference(case, exported[case], native[case]) for case in native), tolerance=tolerance
    )
    if not report.worst.relative <= tolerance:
        raise ExportError(
            f"exported and native logits differ by {report.worst.absolute:.3g}, {report.worst.relative:.3g} of the "
            f"largest logit (case {report.worst.case}); {tolerance:.3g} is allowed",
            where=str(folder),
            hint="the layout or its remote code does not compute what the model does: compare them layer by layer",
        )
    return report


def _native_logits(model: LanguageModel, dtype: Dtype, tokens: Tensor) -> dict[str, Tensor]:
    native = model.spec.skeleton()
    native.load_state_dict({k: v.float() for k, v in rounded_weights(model, dtype).items()}, assign=True)
    with torch.no_grad():
        full = native.eval()(tokens)
        odd = native(tokens[:, : _odd(tokens)])
    return {"full": full, "odd": odd, "cached": full, "padded": full}


def _odd(tokens: Tensor) -> int:
    return tokens.shape[1] - 1 - tokens.shape[1] % 2


def _exported_logits(folder: Path, tokens: Tensor) -> dict[str, Tensor]:
    cases = {
        "full.tokens": tokens,
        "odd.tokens": tokens[:, : _odd(tokens)].clone(),
        "cached.tokens": tokens.clone(),
        "cached.prefill": torch.tensor(max(1, tokens.shape[1] - DECODED)),
        "padded.tokens": torch.nn.functional.pad(tokens, (PADDING, 0)),
        "padded.mask": torch.nn.functional.pad(torch.ones_like(tokens), (PADDING, 0)),
    }
    with tempfile.TemporaryDirectory(prefix="lilliput-parity-") as cache:
        inputs, outputs = Path(cache) / "cases.safetensors", Path(cache) / "logits.safetensors"
        save_file(cases, inputs)
        environment = os.environ | {
            "HF_HOME": cache,
            "HF_MODULES_CACHE": str(Path(cache) / "modules"),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        command = [sys.executable, "-P", exported_logits.__file__, str(folder.resolve()), str(inputs), str(outputs)]
        done = subprocess.run(command, env=environment, cwd=cache, capture_output=True, text=True)
        if done.returncode:
            raise ExportError(
                f"transformers cannot run the released model: {(done.stderr.strip() or 'no message').splitlines()[-1]}",
                where=str(folder),
                hint="the layout names or shapes differ from what the architecture expects, or transformers is older "
                "than 5",
            )
        logits = load_file(outputs)
    logits["padded"] = logits["padded"][:, PADDING:]
    return logits


def _difference(case: str, exported: Tensor, native: Tensor) -> CaseDifference:
    absolute = (exported - native).abs().max().item()
    return CaseDifference(case=case, absolute=absolute, relative=absolute / native.abs().max().item())
