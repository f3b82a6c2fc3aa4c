"""Decompression, told apart by content; every member of an archive is read, and a damaged one is an error."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import IO, Any, BinaryIO, cast

_BLOCK = 1 << 20
_MAGIC_LENGTH = 6
_DECOMPRESSORS: dict[bytes, Callable[[], Any]] = {
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}


def decompressed(raw: BinaryIO) -> BinaryIO:
    """Decompress gzip, bzip2 or xz as the first bytes of a buffered stream say; anything else passes as it is."""
    head = cast("IO[bytes]", raw).peek(_MAGIC_LENGTH)[:_MAGIC_LENGTH]  # type: ignore[attr-defined]  # buffered readers only
    if head.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.open(raw, "rb"))
    for magic, make in _DECOMPRESSORS.items():
        if head.startswith(magic):
            return cast("BinaryIO", io.BufferedReader(_Members(raw, make)))
    return raw


class _Members(io.RawIOBase):
    """All streams of a bzip2 or xz file; Python's readers drop, silently, what follows the first if it is damaged."""

    def __init__(self, raw: BinaryIO, make: Callable[[], Any]) -> None:
        self._raw, self._make, self._decompressor = raw, make, make()
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decompressor.eof:
                self._pending = self._decompressor.unused_data or self._raw.read(_BLOCK)
                if not self._pending:
                    return 0
                self._decompressor = self._make()
            elif self._decompressor.needs_input and not self._pending:
                self._pending = self._raw.read(_BLOCK)
                if not self._pending:
                    raise EOFError("it ends in the middle of a stream")
            data = self._decompressor.decompress(self._pending, len(buffer))
            self._pending = b""
            if data:
                buffer[: len(data)] = data
                return len(data)
