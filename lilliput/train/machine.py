"""Machine that a recipe runs on: device, precision, threads and micro-batch. No recipe says any of this."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from typing import Literal

import torch

from lilliput.base.environment import usable_cores
from lilliput.base.errors import MachineError
from lilliput.base.spec import check_choice, check_range
from lilliput.ops import tile_cache
from lilliput.train.precision import PRECISIONS, autocast
from lilliput.train.ranks import Alone, ExchangeSpec

POSITIONS = 16_384
"""Default positions of a micro-batch where memory does not bound them."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine as `lilliput/machines/` files write it; `auto` fields are resolved once, when a run begins."""

    device: str = "auto"
    """`cpu`, `cuda`, `mps`, or `auto` for the best one there is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of matrix products; weights, gates, norms, losses and optimizer state are fp32 always."""
    threads: int | Literal["auto"] = "auto"
    """CPU threads of PyTorch, part of what makes a run reproducible to the bit; a large corpus is encoded by as many
    processes, to the same files. `auto`: `usable_threads`, and at most eight where another device computes."""
    rows: int | Literal["auto", "memory"] = "auto"
    """Rows of a micro-batch at most; `memory` is as many as fit into memory, which is found in training; `auto` is that
    on CUDA, and elsewhere as many as fit `positions`."""
    positions: int | Literal["auto"] = "auto"
    """Positions of a micro-batch at most, where rows are no number; `auto` is 16,384, or no bound where memory is one.
    Held-out batches have as many, 16,384 where it is `auto`."""
    compile: Literal["auto", "off", "blocks", "graphs"] = "auto"
    """While a model is trained, whether its layers are compiled, each by itself, and whether whole passes over them are
    replayed as CUDA graphs besides; `auto` is `graphs` on CUDA where there is Triton to compile for it (`blocks` where
    workers exchange gradients), else `off`."""
    tiles: Literal["tuned"] | None = None
    """Tile configs of kernels: None as it is shipped for the device's class, `tuned` as it was measured on this one
    and kept, see `lilliput.ops.tile_cache`."""
    exchange: ExchangeSpec = Alone()
    """Exchange between the processes that torchrun starts: `AllReduce()`, `BlockParallel()` or `OuterSteps()`."""

    def __post_init__(self) -> None:
        if self.precision not in ("auto", *PRECISIONS):
            raise MachineError(
                f"there is no precision {self.precision!r}",
                where="the machine's `precision`",
                hint=f"one of: auto, {', '.join(PRECISIONS)}",
            )
        if self.compile == "graphs" and not isinstance(self.exchange, Alone):
            raise MachineError(
                "CUDA graphs cannot exchange gradients between ranks",
                where="the machine's `compile`",
                hint="`blocks` compiles layers without graphs; `auto` chooses what works",
            )
        if self.tiles is not None:
            check_choice("the machine", ("tuned",), tiles=self.tiles)
        for name, value, words in (("rows", self.rows, ("auto", "memory")), ("positions", self.positions, ("auto",))):
            if isinstance(value, str):
                check_choice("the machine", words, **{name: value})
            else:
                check_range("the machine", 1, inf, **{name: value})

    def resolved(self) -> "Machine":
        """The same machine with every `auto` replaced by what it means here.

        Raises:
            MachineError: the device is not there, or tiles are to be tuned ones and none were measured.
        """
        device = _best_device() if self.device == "auto" else self.device
        _check(device)
        if self.tiles == "tuned":
            tile_cache.load(device)
        precision = _best_precision(device) if self.precision == "auto" else self.precision
        threads = _most_threads(device) if self.threads == "auto" else self.threads
        compiles = self.compile
        if compiles == "auto":
            compiles = "off"
            if device.startswith("cuda") and find_spec("triton"):
                compiles = "graphs" if isinstance(self.exchange, Alone) else "blocks"
        rows = "memory" if self.rows_from_memory else self.rows
        return replace(
            self,
            device=device,
            precision=precision,
            threads=threads,
            rows=rows,
            positions=POSITIONS if self.positions == "auto" and rows != "memory" else self.positions,
            compile=compiles,
            exchange=self.exchange.resolved(),
        )

    def apply(self) -> None:
        """Set the process up for this (resolved) machine."""
        tile_cache.activate(tile_cache.load(self.device) if self.tiles == "tuned" else {})
        assert isinstance(self.threads, int)
        torch.set_num_threads(self.threads)
        # Sums inside of fp16 products are fp32, also where cuBLAS would split them and add the parts in fp16.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

    def cast(self) -> AbstractContextManager:
        """The context in which forward passes run."""
        return autocast(self.device, self.precision)

    @property
    def rows_from_memory(self) -> bool:
        """Return whether the rows of a micro-batch are found from memory."""
        device = _best_device() if self.device == "auto" else self.device
        return self.rows == "memory" or (self.rows == "auto" and device.startswith("cuda"))

    @property
    def captures(self) -> bool:
        """Return whether whole passes are replayed as CUDA graphs, by models that do not wait for the device."""
        if self.compile != "auto":
            return self.compile == "graphs"
        device = _best_device() if self.device == "auto" else self.device
        return device.startswith("cuda") and isinstance(self.exchange, Alone)

    def held_out_rows(self, length: int) -> int:
        """Rows of a held-out batch of `length` positions."""
        return max(1, (POSITIONS if self.positions == "auto" else self.positions) // length)

    def micro_batch_sizes(self, rows: int, length: int, most: int | None = None) -> list[int]:
        """Split a worker's rows of `length` positions into micro-batches: their sizes, adding up to `rows`.

        Args:
            rows: of a step.
            length: positions.
            most: rows of a micro-batch at most; None for what the machine says, or begins with where it finds them.
        """
        parts = -(-rows // (most or self._most_rows(rows, length)))
        return [rows // parts + (part < rows % parts) for part in range(parts)]

    def _most_rows(self, rows: int, length: int) -> int:
        if isinstance(self.rows, int):
            return self.rows
        return rows if self.rows_from_memory and self.positions == "auto" else self.held_out_rows(length)


def usable_threads() -> int:
    """Return as many threads as PyTorch takes, at most one a core that this process may use.

    PyTorch sees the cores that a process may run on, but no quota of a container. `OMP_NUM_THREADS` is always obeyed.
    """
    threads = torch.get_num_threads()
    return threads if os.environ.get("OMP_NUM_THREADS") else min(threads, usable_cores())


def inference_device(device: str) -> str:
    """Return the device that a model writes or is scored on, and let PyTorch have no more than `usable_threads`.

    Training has `Machine.apply`, of a machine that is recorded with its run.

    Raises:
        MachineError: the device is not there.
    """
    resolved = Machine(device=device).resolved().device
    if (threads := usable_threads()) < torch.get_num_threads():  # else MKL's settings stay what they were
        torch.set_num_threads(threads)
    return resolved


def _most_threads(device: str) -> int:
    """Return the threads of a machine that says nothing about them.

    With CUDA they only make batches. Two trainings with 32 threads each on a host of 32 cores waited for each other's:
    160 ms a step of SLM-10M instead of 49 (two H200, 2026-11-29).
    """
    threads = usable_threads()
    return threads if device == "cpu" else min(8, threads)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_precision(device: str) -> Literal["fp32", "bf16", "fp16"]:
    """bf16 where the hardware multiplies it: on two Zen 5 cores its products ran 4 to 7 times as fast as fp32.

    GPUs without it (V100, T4) have fp16, which no processor here should be asked for: its products are emulated.
    """
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # from PyTorch 2.10 on
        able = torch.cpu.get_capabilities()
        return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "fp32"
    return "fp32"


def _check(device: str) -> None:
    kind = device.partition(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind, False):
        raise MachineError(
            f"this machine has no device {device!r} that PyTorch {torch.__version__} can use",
            where="the machine's `device`",
            hint="run `lilliput doctor`; or start another run with --out and --machine cpu",
        )
