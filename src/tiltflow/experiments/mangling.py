"""Seeded damage to files: to bytes, to JSON, and to the headers of arrays and archives.

Every function takes a NumPy generator and whole content, and returns content that is damaged: the
same for the same state of the generator. Bytes are flipped, cut, moved and made extreme; values of
JSON become other ones; headers claim other types, shapes, places and sizes. What is known of each
kind of file beside that (links, bombs, pickles) is in `mangled_files.py`.
"""

import io
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

DEEP = "@deep@"
"""Stands for JSON that is nested too deeply for a recursive writer; put in when it is text."""
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    2**31,
    2**63,
    -(2**63),
    10**400,
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    "nan",
    "auto",
    "\0",
    "\ud800",
    "../../x",
    "y" * 10_000,
    "<b>",
    [],
    [[]],
    [1, 2],
    ["a", "a"],
    {},
    {"a": 1},
    DEEP,
)
ODD_SHAPES = ([], [0], [1], [-1], [2**31], [2**40, 2**40], [2**63], [2**64], [1] * 70, [0, 2**62])
EXTREMES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "I64",
    "I32",
    "U8",
    "U64",
    "BOOL",
    "C64",
    "F4",
    "",
)
DESCRS = (
    "|O",
    ">f8",
    "<f2",
    "<f4",
    "<f16",
    "<c16",
    "<i8",
    "<u8",
    "?",
    "<U3",
    "<U999999999",
    "|S8",
    "|V8",
    "<M8[ns]",
    "<m8",
    "f8,f8",
    "x",
    "",
    [("a", "<f8")],
    [("a", "|O")],
    [("a", "<f8", (2**40,))],
)


def choose(generator: np.random.Generator, options: Sequence[Any]) -> Any:
    """One of the options."""
    return options[int(generator.integers(len(options)))]


def mangle_bytes(generator: np.random.Generator, content: bytes) -> bytes:
    """One to three damages, or one at the end of the file, where footers are."""
    for _ in range(int(generator.integers(1, 4))):
        damage = choose(generator, BYTE_DAMAGES)
        if len(content) > 64 and generator.random() < 0.3:
            head = len(content) - int(generator.integers(8, min(600, len(content))))
            content = content[:head] + damage(generator, content[head:])
        elif len(content) > 64 and generator.random() < 0.3:
            end = int(generator.integers(8, min(600, len(content))))
            content = damage(generator, content[:end]) + content[end:]
        else:
            content = damage(generator, content)
    return content


def _places(generator: np.random.Generator, content: bytes) -> tuple[int, int]:
    """Two places in order; most often they are near to each other."""
    first = int(generator.integers(len(content) + 1))
    if generator.random() < 0.7:
        return first, min(len(content), first + int(generator.integers(1, 40)))
    second = int(generator.integers(len(content) + 1))
    return min(first, second), max(first, second)


def _flip(generator: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(generator.integers(1, 9)) if changed else 0):
        changed[int(generator.integers(len(changed)))] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def _overwrite(generator: np.random.Generator, content: bytes) -> bytes:
    first, last = _places(generator, content)
    return content[:first] + generator.bytes(last - first) + content[last:]


def _cut(generator: np.random.Generator, content: bytes) -> bytes:
    return content[: int(generator.integers(len(content) + 1))]


def _cut_out(generator: np.random.Generator, content: bytes) -> bytes:
    first, last = _places(generator, content)
    return content[:first] + content[last:]


def _repeat(generator: np.random.Generator, content: bytes) -> bytes:
    first, last = _places(generator, content)
    times = int(generator.integers(2, 30))
    return content[:first] + content[first:last] * times + content[last:]


def _insert(generator: np.random.Generator, content: bytes) -> bytes:
    place, _ = _places(generator, content)
    what = choose(generator, (b"\0", b'"', b"\n", b"{", b"[", b",", b"-", b"\xff", b"\r", b"9"))
    if generator.random() < 0.5:
        what = generator.bytes(int(generator.integers(1, 20)))
    return content[:place] + what * int(generator.integers(1, 60)) + content[place:]


def _move(generator: np.random.Generator, content: bytes) -> bytes:
    first, last = _places(generator, content)
    rest = content[:first] + content[last:]
    place, _ = _places(generator, rest)
    return rest[:place] + content[first:last] + rest[place:]


def _blank(generator: np.random.Generator, content: bytes) -> bytes:
    first, last = _places(generator, content)
    return (
        content[:first]
        + choose(generator, (b"\0", b"\xff", b" ")) * (last - first)
        + content[last:]
    )


def _extreme(generator: np.random.Generator, content: bytes) -> bytes:
    """A field of 1 to 8 bytes, as counts and offsets are, becomes an extreme number."""
    width = choose(generator, (1, 2, 4, 8))
    if len(content) < width:
        return content
    place = int(generator.integers(len(content) - width + 1))
    number = choose(generator, EXTREMES) & (2 ** (8 * width) - 1)
    field = number.to_bytes(width, choose(generator, ("little", "big")))
    return content[:place] + field + content[place + width :]


BYTE_DAMAGES: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (
    _flip,
    _flip,
    _overwrite,
    _cut,
    _cut_out,
    _repeat,
    _insert,
    _move,
    _blank,
    _extreme,
    _extreme,
    _extreme,
)


def mangle_json(generator: np.random.Generator, value: Any) -> Any:
    """One value in a tree of JSON becomes another, or its key another, or it goes."""
    if not isinstance(value, (dict, list)) or not value or generator.random() < 0.02:
        return _another(generator, value)
    value = dict(value) if isinstance(value, dict) else list(value)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = choose(generator, keys)
    how = generator.random()
    if isinstance(value[key], (dict, list)) and value[key] and how < 0.6:
        value[key] = mangle_json(generator, value[key])
    elif how < 0.8:
        value[key] = _another(generator, value[key])
    elif how < 0.9:
        del value[key]
    elif isinstance(value, dict):
        value[choose(generator, (*keys, "x", "", "format_version", "\ud800"))] = value.pop(key)
    else:
        value.insert(key, value[choose(generator, keys)])
    return value


def _another(generator: np.random.Generator, value: Any) -> Any:
    if isinstance(value, (int, float)) and abs(value) < 2**1000 and generator.random() < 0.4:
        return choose(
            generator, (-value, value + 1, value * 1000, float(value), str(value), [value])
        )
    if isinstance(value, str) and generator.random() < 0.3:
        return choose(generator, (value + "x", value.upper(), [value], value[:1], value * 50))
    return choose(generator, ODD_VALUES)


def json_bytes(generator: np.random.Generator, value: Any) -> bytes:
    """JSON as text, with what is nested deeply put in."""
    depth = choose(generator, (50, 2000, 200_000))
    nested = choose(generator, ("[" * depth + "]" * depth, "[" * depth, '{"a":' * depth))
    return json.dumps(value).replace(f'"{DEEP}"', nested).encode()


def mangle_json_file(generator: np.random.Generator, content: bytes) -> bytes:
    """The values of a JSON file, or its bytes."""
    if generator.random() < 0.25:
        return mangle_bytes(generator, content)
    value = json.loads(content)
    for _ in range(int(generator.integers(1, 4))):
        value = mangle_json(generator, value)
    return json_bytes(generator, value)


def mangle_json_lines(generator: np.random.Generator, content: bytes) -> bytes:
    """One or two lines of a file with a JSON value in each, or its bytes."""
    if generator.random() < 0.3:
        return mangle_bytes(generator, content)
    lines = content.splitlines()
    for place in generator.permutation(len(lines))[: int(generator.integers(1, 3))]:
        lines[place] = json_bytes(generator, mangle_json(generator, json.loads(lines[place])))
    return b"\n".join(lines) + choose(generator, (b"\n", b""))


def mangle_safetensors(generator: np.random.Generator, content: bytes) -> bytes:
    """Names, types, shapes and places in the header, the header's length, or any bytes."""
    how = generator.random()
    if how < 0.2:
        return mangle_bytes(generator, content)
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    if how < 0.3:
        return struct.pack("<Q", choose(generator, EXTREMES)) + content[8:]
    if how < 0.4:
        return content[: 8 + length] + mangle_bytes(generator, body)
    name = choose(generator, [each for each in header if each != "__metadata__"])
    entry = dict(header[name])
    field = choose(generator, ("dtype", "shape", "shape", "data_offsets", "name", "any"))
    if field == "dtype":
        entry["dtype"] = choose(generator, DTYPES)
    elif field == "shape":
        shape = list(entry["shape"])
        others = (shape[::-1], [*shape, 1], [1, *shape], shape[1:], [int(np.prod(shape))])
        entry["shape"] = choose(generator, others + ODD_SHAPES)
    elif field == "data_offsets":
        first, last = entry["data_offsets"]
        others = ([last, first], [first, first], [first, 2**63], [-1, last], [first + 4, last + 4])
        entry["data_offsets"] = choose(generator, (*others, [0, len(body)], [first]))
    elif field == "name":
        header[choose(generator, ("", "x", "__metadata__", "a.b.0", *header))] = header.pop(name)
    if field not in ("name", "any"):
        header[name] = entry
    if field == "any":
        header = mangle_json(generator, header)
    text = json_bytes(generator, header)
    return struct.pack("<Q", len(text)) + text + body


def mangle_npy(generator: np.random.Generator, content: bytes, pickled: bytes) -> bytes:
    """The type, the shape or the order in the header, a pickle for the numbers, or any bytes."""
    how = generator.random()
    if how < 0.3:
        return mangle_bytes(generator, content)
    if how < 0.35:
        return pickled
    array = np.load(io.BytesIO(content), allow_pickle=False)
    header: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    body = content[len(content) - array.nbytes :]
    if how < 0.5:
        header |= {"descr": "|O", "shape": choose(generator, ((1,), array.shape))}
        return _npy(generator, header, pickled)
    for _ in range(int(generator.integers(1, 3))):
        field = choose(generator, list(header))
        odd = {
            "descr": DESCRS,
            "fortran_order": (True, 2, None, "x"),
            "shape": (array.shape[::-1], (*array.shape, 1), array.size, *map(tuple, ODD_SHAPES)),
        }
        if generator.random() < 0.2:
            header = mangle_json(generator, header)
            break
        header[field] = choose(generator, odd[field])
    return _npy(generator, header, body)


def _npy(generator: np.random.Generator, header: Any, body: bytes) -> bytes:
    text = repr(header).encode("utf-8", "replace") + b" " * int(generator.integers(60)) + b"\n"
    if generator.random() < 0.05:
        text = b"(" * choose(generator, (100, 5000)) + text
    length = choose(generator, EXTREMES) & 0xFFFF if generator.random() < 0.1 else len(text)
    version = choose(generator, (b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\x09\0"))
    size = struct.pack("<H" if version == b"\1\0" else "<I", length & 0xFFFF)
    return b"\x93NUMPY" + version + size + text + body
