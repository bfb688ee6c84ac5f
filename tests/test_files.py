"""Files that are hashed while they are used."""

import hashlib
import weakref

from models.storage.files import Hashing

MEBIBYTE = 1 << 20


def test_few_chunks_are_held_while_they_are_hashed():
    class Chunk(bytearray):
        """Bytes whose end can be noticed."""

    chunks, most = [], 0
    with Hashing() as hashing:
        for number in range(64):
            chunk = Chunk(bytes([number]) * MEBIBYTE)
            chunks.append(weakref.ref(chunk))
            hashing.update(chunk)
            most = max(most, sum(one() is not None for one in chunks))
        result = hashing.result()

    assert most <= 3  # this one, that before it, and one that a thread is about to let go
    expected = b"".join(bytes([number]) * MEBIBYTE for number in range(64))
    assert (result.size, result.sha256) == (len(expected), hashlib.sha256(expected).hexdigest())
