"""TensorFlow's checkpoints, byte by byte: an index of the given entries."""

from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

MAGIC = (0xDB4775248B80FB57).to_bytes(8, 'little')


def varint(number: int) -> bytes:
    """Seven bits a byte, low ones first."""
    out = b''
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def entry(shared: int, own: bytes, value: bytes) -> bytes:
    """An entry whose key begins with `shared` bytes of the one before."""
    return varint(shared) + varint(len(own)) + varint(len(value)) + own + value


def masked(data: bytes) -> bytes:
    """A checksum as leveldb stores it."""
    return masked_crc32c(data).to_bytes(4, 'little')


def block(entries: bytes) -> bytes:
    """A block with one restart point, its type and its masked checksum."""
    content = entries + bytes(4) + (1).to_bytes(4, 'little') + b'\0'
    return content + masked(content)


def table(data: bytes, handles: int = 1) -> bytes:
    """An index file of one data block, which its index names once or more often."""
    first = block(data)
    handle = varint(0) + varint(len(first) - 5)
    index = block(b''.join(entry(0, b'%06d' % number, handle) for number in range(handles)))
    place = varint(len(first)) + varint(len(index) - 5)
    return first + index + (varint(0) + varint(0) + place).ljust(40, b'\0') + MAGIC


def field(tag: int, content: bytes) -> bytes:
    """A field of a protocol-buffer message that holds bytes."""
    return bytes([tag << 3 | 2]) + varint(len(content)) + content


def record(data: bytes) -> bytes:
    """Says that a data file begins with `data`, float32."""
    shape = field(2, b'\x08' + varint(len(data) // 4))
    return b'\x08\x01' + field(2, shape) + b'\x28' + varint(len(data)) + b'\x35' + masked(data)
