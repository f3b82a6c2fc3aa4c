"""Compressed inputs: gzip, bzip2, xz and zstd, recognised by content, and read to the end of their last member.

Python's own readers silently drop a damaged second member of a bzip2 or xz file and all after it, and do not notice
when blocked gzip was cut between two blocks. Here the decompressors below them are used.
"""

import bz2
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any, BinaryIO, cast

from protembed.errors import FormatError

_BLOCK, _BUFFER = 1 << 16, 1 << 17
_MAGIC_LENGTH = 16
_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"
# A frame that readers of zstd skip; pzstd begins its files with one.
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_ZSTD_ADVICE = "install one (`pip install 'protembed[zstd]'`), or decompress the file (`zstd -d`)"
# A file in blocked gzip (BGZF) that was cut between two blocks can be recognised only by the missing empty block that
# ends it. Source: SAM/BAM format specification, sections 4.1 and 4.1.2.
_BGZF_START, _BGZF_FIELD = b"\x1f\x8b\x08\x04", b"BC\x02\x00"


class _GzipMember:
    """One member of a gzip file, with the interface of Python's other decompressors."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._head, self._is_empty, self._is_full = b"", True, False

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    @property
    def needs_input(self) -> bool:
        # After as much as was asked for, zlib may hold more although it has read all of its input.
        return not self._is_full and not self._inflate.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._head += data[: _MAGIC_LENGTH - len(self._head)]
        result = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self._is_empty, self._is_full = self._is_empty and not result, len(result) == max_length
        return result

    def check_is_last(self) -> None:
        """Check that a file may end after this member: of blocked gzip only after an empty block."""
        is_blocked = self._head.startswith(_BGZF_START) and self._head.endswith(_BGZF_FIELD)
        if is_blocked and not self._is_empty:
            raise EOFError("the block that ends BGZF is missing")


class _ZstdFrame:
    """One frame of a zstd file; its errors are OSErrors without a number, like those of bzip2."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        self._error = zstd.ZstdError
        # `zstd --long=31` refers back by up to 2 GB; without the option, frames that refer back by more than 128 MB
        # could not be read.
        self._frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 31})

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    @property
    def needs_input(self) -> bool:
        return self._frame.needs_input

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return self._frame.decompress(data, max_length)
        except self._error as error:
            raise OSError(str(error)) from error


_MEMBERS: Mapping[bytes, Callable[[], Any]] = {
    _GZIP: _GzipMember,
    _BZIP2: bz2.BZ2Decompressor,
    _XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
    _ZSTD: _ZstdFrame,
}
# The unit of the zero bytes that may follow a member.
_PADDING = {_GZIP: 1, _XZ: 4}


class _MemberReader(io.RawIOBase):
    """All members of a compressed file, one after the other.

    Args:
        raw: Compressed bytes.
        make: Makes the decompressor of one member.
        padding: Zero bytes may follow a member, in multiples of this number; 0 if none may.
    """

    def __init__(self, raw: BinaryIO, make: Callable[[], Any], padding: int) -> None:
        self._raw, self._make, self._member, self._padding = raw, make, make(), padding
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._member.eof:
                self._pending = self._next_member()
                if not self._pending:
                    if isinstance(self._member, _GzipMember):
                        self._member.check_is_last()
                    return 0
                self._member = self._make()
            elif self._member.needs_input and not self._pending:
                self._pending = self._raw.read(_BLOCK)
                if not self._pending:
                    raise EOFError("it ends in the middle of a stream")
            data = self._member.decompress(self._pending, len(buffer))
            self._pending = b""
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _next_member(self) -> bytes:
        """Read the first bytes of the next member, after padding; none at the end of the file."""
        data, num_padding = self._member.unused_data or self._raw.read(_BLOCK), 0
        while self._padding and data.startswith(b"\0"):
            stripped = data.lstrip(b"\0")
            num_padding += len(data) - len(stripped)
            data = stripped or self._raw.read(_BLOCK)
        if self._padding and num_padding % self._padding:
            raise EOFError("its padding is not a multiple of four bytes")
        return cast("bytes", data)


def decompressed(raw: BinaryIO, name: str) -> BinaryIO:
    """Decompress a buffered stream if its first bytes are those of gzip, bzip2, xz or zstd; return others as they are.

    Raises:
        FormatError: The stream, of this name, is zstd, and its reader is not installed.
    """
    head = cast("IO[bytes]", raw).peek(_MAGIC_LENGTH)[:_MAGIC_LENGTH]  # type: ignore[attr-defined]  # buffered readers only
    magic = next((magic for magic in _MEMBERS if head.startswith(magic)), None)
    if _ZSTD_SKIPPABLE.match(head):
        magic = _ZSTD
    if magic is None:
        return raw
    try:
        reader = _MemberReader(raw, _MEMBERS[magic], _PADDING.get(magic, 0))
    except ImportError as error:
        found = "this is a zstd archive, and no package that reads zstd is installed"
        raise FormatError(name, found, _ZSTD_ADVICE) from error
    return cast("BinaryIO", io.BufferedReader(reader, _BUFFER))
