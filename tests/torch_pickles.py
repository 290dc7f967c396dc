"""PyTorch files assembled by hand, opcode by opcode, for tests without torch."""

import struct
import zipfile

import numpy as np

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
PROTOCOL = b"\x80\x02M\xe9\x03."
SYSTEM = b"\x80\x02}(U\x0dlittle_endian\x88u."
ORDERED = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
OLD_REBUILD = b"ctorch._utils\n_rebuild_tensor\n"


def number(n):
    return b"\x8a\x08" + struct.pack("<q", n)  # LONG1


def text(s):
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def python2_text(s):
    return b"U" + bytes([len(s)]) + s.encode()


def numbers(ns):
    return b"(" + b"".join(number(n) for n in ns) + b"t"


def storage(key, kind="Float", length=4):
    return b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(
        key
    ) + text("cpu") + number(length) + b"tQ"  # fmt: skip


def tensor(where, offset, size, strides, rebuild=REBUILD):
    """A tensor's opcodes; `where` are its storage's."""
    arguments = where + number(offset) + numbers(size) + numbers(strides)
    if rebuild == REBUILD:
        arguments += b"\x89" + ORDERED + b")R"
    return rebuild + b"(" + arguments + b"tR"


def mapping(**values):
    """A pickle of {name: opcodes}."""
    return pickle(b"}(" + b"".join(text(k) + v for k, v in values.items()) + b"u")


def pickle(body):
    return b"\x80\x02" + body + b"."


def zip_file(path, pickled, storages=(), root="archive", compression=zipfile.ZIP_STORED):
    """Writes the newer format; `storages` are (key, bytes)."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickled)
        for key, data in storages:
            archive.writestr(f"{root}/data/{key}", data)
    return path


def legacy_file(path, pickled, storages=()):
    """Writes the older format; `storages` are (key, length in elements, bytes)."""
    keys = pickle(b"](" + b"".join(text(key) for key, _, _ in storages) + b"e")
    data = b"".join(struct.pack("<q", length) + content for _, length, content in storages)
    path.write_bytes(MAGIC + PROTOCOL + SYSTEM + pickled + keys + data)
    return path


def shared_zeros(path, shapes):
    """A legacy file with tensors of these shapes that all look at the same ones, nearly zero."""
    length = max(int(np.prod(shape)) for shape in shapes.values())
    body = b"".join(
        text(name) + tensor(storage("0", length=length), 0, shape, contiguous(shape), OLD_REBUILD)
        for name, shape in shapes.items()
    )
    content = np.full(length, 2.0**-10, np.float32).tobytes()
    return legacy_file(path, pickle(b"}(" + body + b"u"), [("0", length, content)])


def contiguous(shape):
    return [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
