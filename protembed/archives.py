"""Decompression, told apart by content; every member of an archive is read, and a damaged one is an error."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import IO, Any, BinaryIO, cast

_ARCHIVE_BLOCK = 1 << 20
_MAGIC_LENGTH = 16
# Blocked gzip, BGZF, is cut between two blocks without a trace, were it not for the empty block that ends it.
# Source: SAM/BAM format specification, sections 4.1 and 4.1.2.
_BGZF_START, _BGZF_FIELD = b"\x1f\x8b\x08\x04", b"BC\x02\x00"
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_XZ = b"\xfd7zXZ\x00"
_DECOMPRESSORS: dict[bytes, Callable[[], Any]] = {
    b"BZh": bz2.BZ2Decompressor,
    _XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}


def decompressed(raw: BinaryIO) -> BinaryIO:
    """Decompress gzip, bzip2 or xz as the first bytes of a buffered stream say; anything else passes as it is."""
    head = cast("IO[bytes]", raw).peek(_MAGIC_LENGTH)[:_MAGIC_LENGTH]  # type: ignore[attr-defined]  # buffered readers only
    if head.startswith(_BGZF_START) and head.endswith(_BGZF_FIELD):
        return cast("BinaryIO", gzip.open(cast("BinaryIO", _Blocks(raw)), "rb"))
    if head.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.open(raw, "rb"))
    for magic, make in _DECOMPRESSORS.items():
        if head.startswith(magic):
            return cast("BinaryIO", io.BufferedReader(_Members(raw, make, is_padded=magic == _XZ)))
    return raw


class _Blocks:
    """The bytes of a BGZF file as `gzip` takes them; without the block that ends it something is missing."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._end = raw, b""

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._end = (self._end + data)[-len(_BGZF_END) :]
        if not data and self._end != _BGZF_END:
            raise EOFError("the block that ends BGZF is missing")
        return data


class _Members(io.RawIOBase):
    """All streams of a bzip2 or xz file; Python's readers drop, silently, what follows the first if it is damaged."""

    def __init__(self, raw: BinaryIO, make: Callable[[], Any], *, is_padded: bool) -> None:
        self._raw, self._make, self._decompressor, self._is_padded = raw, make, make(), is_padded
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decompressor.eof:
                self._pending = self._next_stream()
                if not self._pending:
                    return 0
                self._decompressor = self._make()
            elif self._decompressor.needs_input and not self._pending:
                self._pending = self._raw.read(_ARCHIVE_BLOCK)
                if not self._pending:
                    raise EOFError("it ends in the middle of a stream")
            data = self._decompressor.decompress(self._pending, len(buffer))
            self._pending = b""
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _next_stream(self) -> bytes:
        """Read on to the next stream; those of xz may have padding behind them, a multiple of four zero bytes."""
        data, num_padding = self._decompressor.unused_data or self._raw.read(_ARCHIVE_BLOCK), 0
        while self._is_padded and data.startswith(b"\0"):
            stripped = data.lstrip(b"\0")
            num_padding += len(data) - len(stripped)
            data = stripped or self._raw.read(_ARCHIVE_BLOCK)
        if num_padding % 4:
            raise EOFError("its padding is no multiple of four bytes")
        return cast("bytes", data)
