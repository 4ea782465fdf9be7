"""CRC-32C, the checksum of TensorFlow's files, in NumPy.

zlib's CRC-32 has another polynomial. For the weights of a ResNet-50 a loop over bytes
takes a minute, this code two seconds.
"""

from functools import cache

import numpy as np

_LANE = 512  # bytes of one row; rows are computed side by side
_FEW = 8 * _LANE  # up to so many bytes a loop is faster


def crc32c(data: bytes) -> int:
    """The checksum of bytes.

    Source: RFC 3720, Sec. 12.1. CRC is linear, so rows are processed side by side, and the
    checksum of one row is shifted past the next with a table for zero bytes.
    """
    table, skip = _tables()
    count = len(data) // _LANE if len(data) > _FEW else 0
    rows = np.frombuffer(data, np.uint8, count * _LANE).reshape(count, _LANE)
    checksums = np.zeros(count, np.uint32)
    for column in np.ascontiguousarray(rows.T):
        checksums = table[(checksums ^ column) & 255] ^ checksums >> 8
    crc, skips = 0xFFFFFFFF, skip.tolist()
    for checksum in checksums.tolist():
        for byte in range(4):
            checksum ^= skips[byte][crc >> 8 * byte & 255]
        crc = checksum
    bytewise = table.tolist()
    for byte in data[count * _LANE :]:
        crc = bytewise[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def unmasked(stored: bytes) -> int:
    """A checksum as leveldb stores it: rotated by 15 bits and shifted."""
    rotated = (int.from_bytes(stored[:4], 'little') - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """The effect of one byte on the checksum, and of a row of zeros on each of its bytes."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> 1 ^ (table & 1) * np.uint32(0x82F63B78)
    bytes_ = np.arange(256, dtype=np.uint32)
    skip = np.stack([bytes_ << np.uint32(8 * place) for place in range(4)])  # (4, 256)
    for _ in range(_LANE):
        skip = table[skip & 255] ^ skip >> 8
    return table, skip
