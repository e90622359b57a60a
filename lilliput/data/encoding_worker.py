"""Encodes texts in a process of its own, which `encoding_processes.py` starts: frames in and out, on pipes.

A frame is a kind (uint8) and the size of what follows (uint64), little-endian:

    SETUP   to here    JSON: the tokenizer, whether it adds its special tokens, and the arguments of `Encoder`
    TEXTS   to here    the number of texts and the bytes of each (uint64), then the texts in UTF-8, joined
    IDS     from here  the number of texts and the bytes of the ids of each (uint64), then the ids, joined
    ERROR   from here  JSON: the parts of an error, or a traceback

The process ends when the pipe to it does, so that it never outlives the one that started it by more than a frame. It
imports neither PyTorch nor anything of a recipe, and starts in a quarter of a second.
"""

import json
import os
import struct
import sys
import traceback
from array import array
from collections.abc import Sequence
from io import BufferedReader

from tokenizers import Tokenizer

from lilliput.base.errors import LilliputError
from lilliput.tokenizer.encoder import Encoder

SETUP, TEXTS, IDS, ERROR = range(4)
HEAD = struct.Struct("<BQ")
SIZE = "Q"
"""Type of an array of sizes, as `array` names it."""


def joined(parts: Sequence[bytes | memoryview]) -> bytes:
    """Join byte strings as a frame has them: their number, the size of each, and themselves."""
    return b"".join((array(SIZE, (len(parts), *map(len, parts))), *parts))


def parted(data: memoryview) -> list[memoryview]:
    """Return the byte strings that were joined."""
    width = array(SIZE).itemsize
    (count,) = data[:width].cast(SIZE)
    begin, parts = width * (1 + count), []
    for size in data[width:begin].cast(SIZE):
        parts.append(data[begin : begin + size])
        begin += size
    return parts


def main() -> None:
    """Answer frames until there are no more."""
    source, target = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints is no frame
    setup = json.loads(_frame(source))
    tokenizer = Tokenizer.from_str(setup["tokenizer"])
    tokenizer.encode_special_tokens = True  # as `literal` does, without another copy
    encoder = Encoder(tokenizer, setup["where"], code=setup["code"])
    while data := _frame(source):
        try:
            texts = (str(part, "utf-8", "surrogatepass") for part in parted(memoryview(data)))
            ids = encoder.stream(texts, add_special_tokens=setup["add_special_tokens"])
            kind, answer = IDS, joined([memoryview(some).cast("B") for some in ids])
        except LilliputError as error:
            parts = {"class": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
            kind, answer = ERROR, json.dumps(parts).encode()
        except BaseException:
            kind, answer = ERROR, json.dumps({"traceback": traceback.format_exc()}).encode()
        target.write(HEAD.pack(kind, len(answer)))
        target.write(answer)
        target.flush()


def _frame(source: BufferedReader) -> bytes:
    """Return what the next frame has; nothing at the end, or where a part of it is missing."""
    head = source.read(HEAD.size)
    if len(head) < HEAD.size:
        return b""
    _, size = HEAD.unpack(head)
    data = source.read(size)
    return data if len(data) == size else b""


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(0)
    sys.exit()
