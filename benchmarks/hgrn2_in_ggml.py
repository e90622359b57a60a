"""Does ggml's gated linear attention compute HGRN2's recurrence?

    python benchmarks/hgrn2_in_ggml.py [--out FILE.json]

Runs `ggml_gated_linear_attn` of the ggml in llama-cpp-python, which has to be installed, on random queries, keys,
values and gates, in one call and in several that hand the state on, and compares outputs and states with the scan of
`lilliput.ops.gla` in fp64. docs/hgrn2-in-ggml.md has the mapping. There are never more threads than heads: ggml's
operation hangs with more.
"""

import argparse
import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.ops.gla import Backend, gla

F32 = 0
"""ggml's number of the type."""
BYTES = 512 << 20
SHAPES = ((6, 128, 40), (4, 64, 257), (3, 48, 16))
"""Heads, their width, and tokens; 48 is no multiple of what the vectors of some processors hold."""


class Settings(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class GGML:
    """As much of ggml as runs one operation."""

    def __init__(self) -> None:
        import llama_cpp

        folder = Path(llama_cpp.__file__).parent / "lib"
        self.base, self.cpu = (
            ctypes.CDLL(str(folder / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL) for name in ("ggml-base", "ggml-cpu")
        )
        pointer, whole = ctypes.c_void_p, ctypes.c_int64
        for name, result, arguments in (
            ("ggml_init", pointer, [Settings]),
            ("ggml_free", None, [pointer]),
            ("ggml_new_tensor_3d", pointer, [pointer, ctypes.c_int, whole, whole, whole]),
            ("ggml_gated_linear_attn", pointer, [*[pointer] * 6, ctypes.c_float]),
            ("ggml_get_data_f32", pointer, [pointer]),
            ("ggml_nelements", whole, [pointer]),
            ("ggml_new_graph", pointer, [pointer]),
            ("ggml_build_forward_expand", None, [pointer, pointer]),
        ):
            function = getattr(self.base, name)
            function.restype, function.argtypes = result, arguments
        self.cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]

    def gated_linear_attn(self, parts: Sequence[Tensor], state: Tensor, scale: float, threads: int) -> Tensor:
        """The result of the operation for k, v, q, g [T, H, S] and a state [1, H, S, S], as it lies in memory."""
        base, context = self.base, self.base.ggml_init(Settings(BYTES, None, False))
        try:
            tokens, heads, size = parts[0].shape
            inputs = [self._tensor(context, part, (size, heads, tokens)) for part in parts]
            inputs.append(self._tensor(context, state, (state.numel(), 1, 1)))
            made = base.ggml_gated_linear_attn(context, *inputs, scale)
            graph = base.ggml_new_graph(context)
            base.ggml_build_forward_expand(graph, made)
            self.cpu.ggml_graph_compute_with_ctx(context, graph, threads)
            found = torch.empty(base.ggml_nelements(made), dtype=torch.float32)
            ctypes.memmove(found.data_ptr(), base.ggml_get_data_f32(made), found.numel() * 4)
            return found
        finally:
            base.ggml_free(context)

    def _tensor(self, context: int, values: Tensor, shape: tuple[int, int, int]) -> int:
        tensor = self.base.ggml_new_tensor_3d(context, F32, *shape)
        values = values.contiguous()
        ctypes.memmove(self.base.ggml_get_data_f32(tensor), values.data_ptr(), values.numel() * 4)
        return tensor


def compared(ggml: GGML, heads: int, size: int, tokens: int, pieces: Sequence[int]) -> dict[str, float]:
    """Differences of outputs and of the last state, over their largest number."""
    draw = torch.Generator().manual_seed(0)
    q, v, z = (torch.randn(tokens, heads, size, generator=draw) for _ in range(3))
    f, k = torch.sigmoid(z + 2), torch.sigmoid(-z - 2)
    state, outputs = torch.zeros(1, heads, size, size), []
    for q_part, k_part, v_part, f_part in zip(*(one.split(list(pieces)) for one in (q, k, v, f)), strict=True):
        made = ggml.gated_linear_attn((k_part, v_part, q_part, f_part), state, size**-0.5, threads=min(2, heads))
        outputs.append(made[: q_part.numel()].view(-1, heads, size))
        state = made[q_part.numel() :].view_as(state)
    wide = (one.double()[None] for one in (q, k, v))
    expected, after = gla(*wide, f.double().log()[None], backend=Backend.REFERENCE)
    found = {"outputs": (torch.cat(outputs), expected[0]), "state": (state, after)}
    return {name: ((one - two).abs().max() / two.abs().max()).item() for name, (one, two) in found.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    ggml, rows = GGML(), []
    for heads, size, tokens in SHAPES:
        for pieces in ((tokens,), (tokens - 8, 1, 7)):
            found = compared(ggml, heads, size, tokens, pieces)
            rows.append({"heads": heads, "width": size, "tokens": list(pieces)} | found)
            print(f"{heads} heads of {size}, tokens {pieces}: {found}")
    if given.out:
        import llama_cpp

        versions = environment() | {"llama_cpp_python": llama_cpp.__version__}
        write_json(given.out, {"found": rows, "environment": versions})


if __name__ == "__main__":
    main()
