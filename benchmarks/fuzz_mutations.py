"""Mutations of files for benchmarks/fuzz.py: bits, bytes, numbers and words changed, parts moved, checksums mended."""

import io
import re
import struct
import zipfile
import zlib

import numpy as np

_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_WORDS = (
    *("0", "-1", "-5", "1e30", "1e400", "NaN", "-Infinity", "65536", "4294967296", "9" * 400),
    *('"60"', '""', '"\\u0000"', '"' + "n" * 300 + '"', '"../a.jpg"', "null", "true"),
    *("[]", "{}", "[[]]", '{"size": [33, 41], "counts": "~"}', "[" * 2000 + "]" * 2000),
)


def mutated(rng: np.random.Generator, starts: dict[str, bytes], index: int) -> tuple[str, bytes]:
    """A file made of one of the whole ones; the name stays.

    Args:
        rng: of this file alone.
        starts: the whole files, by name.
        index: of this file; the first ones of all are the whole ones themselves.
    """
    names = sorted(starts)
    if index < len(names):
        return names[index], starts[names[index]]
    name = names[rng.integers(len(names))]
    content, other = starts[name], starts[names[rng.integers(len(names))]]
    is_zip = content.startswith(b"PK\3\4")
    if is_zip and rng.random() < 0.6:
        return name, _inside_zip(rng, content)
    content = _changed(rng, content, other)
    return name, _png_mended(content) if rng.random() < 0.5 else content


def _changed(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """One to four changes; a text is changed by its words as well."""
    is_text = content[:1] in (b"{", b"[", b"<") and rng.random() < 0.8
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        content = _word_changed(rng, content) if is_text else _bytes_changed(rng, content, other)
    return content


def _word_changed(rng: np.random.Generator, text: bytes) -> bytes:
    """Replaces a number, a word or a list of numbers of a text in JSON or XML."""
    words = [*re.finditer(rb'-?\d+\.?\d*|"[^"]*"|\[[^\[\]]*\]|true|false|null', text)]
    if not words:
        return text
    word = words[rng.integers(len(words))]
    return text[: word.start()] + _WORDS[rng.integers(len(_WORDS))].encode() + text[word.end() :]


def _bytes_changed(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """One change to bytes; most fall where they are not zero, or near the beginning."""
    if not content:
        return other
    at, kind = _place(rng, content), int(rng.integers(9))
    length = int(min(len(content) - at, rng.choice([1, 2, 4, 8, 16, 64, 512])))
    if kind == 0:  # bits
        changed = bytearray(content)
        for _ in range(int(rng.choice([1, 1, 2, 8]))):
            changed[_place(rng, content)] ^= 1 << rng.integers(8)
        return bytes(changed)
    if kind == 1:
        return content[:at] + bytes([rng.choice([0, 1, 127, 128, 255, rng.integers(256)])]) + content[at + 1 :]
    if kind in (2, 3):  # a number, as lengths and sizes are
        size = int(rng.choice([1, 2, 4, 8]))
        number = _NUMBERS[rng.integers(len(_NUMBERS))] % 256**size
        order = "little" if rng.random() < 0.5 else "big"
        return content[:at] + number.to_bytes(size, order) + content[at + size :]
    if kind == 4:
        return content[:at]
    if kind == 5:  # a part cut out
        return content[:at] + content[at + length :]
    if kind == 6:  # a part twice
        return content[: at + length] + content[at:]
    if kind == 7:  # a part of another file
        there = _place(rng, other)
        return content[:at] + other[there : there + length] + content[at + length :]
    header = int(rng.choice([4, 8, 16, 32]))  # the header of another file
    return other[:header] + content[header:]


def _place(rng: np.random.Generator, content: bytes) -> int:
    """A place in a file: one that is not zero, one near the beginning, or any."""
    chance = rng.random()
    if chance < 0.6 and len(content) > 4096:
        filled = np.flatnonzero(np.frombuffer(content, np.uint8))
        return int(filled[rng.integers(len(filled))]) if len(filled) else 0
    return int(rng.integers(min(len(content), 128) if chance > 0.8 else len(content)))


def _png_mended(content: bytes) -> bytes:
    """A PNG with the right checksum for each of its chunks; another file as it is."""
    if not content.startswith(b"\x89PNG"):
        return content
    mended, at = [content[:8]], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        body = content[at + 4 : at + 8 + length]
        mended += [content[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join([*mended, content[at:]])


def _inside_zip(rng: np.random.Generator, content: bytes) -> bytes:
    """A zip file with one of its members changed, and all checksums right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(file, "w") as made:
        members = archive.infolist()
        chosen = [member for member in members if member.file_size and not member.filename.endswith("version")]
        target = chosen[0] if rng.random() < 0.5 else chosen[rng.integers(len(chosen))]
        for member in members:
            body = archive.read(member)
            if member is target:
                body = _changed(rng, body, content)
            made.writestr(member.filename, body, member.compress_type)
    return file.getvalue()
