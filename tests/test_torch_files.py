"""PyTorch files: those torch wrote against what was in them, and hostile ones."""

import os
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from talkjax import torch_files
from talkjax.errors import UserError
from tests import torch_pickles as made

GOLDEN = Path(__file__).parent / "golden"
FOUR = np.arange(4, dtype=np.float32)
FOUR_BYTES = FOUR.tobytes()


# ---- what torch wrote ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("name", ["tensors", "nested"])
def test_tensors_of_torch(name, kind):
    found = torch_files.load(GOLDEN / f"{name}_{kind}.pth")
    with np.load(GOLDEN / f"{name}.npz") as expected:
        assert sorted(found) == sorted(expected.files)
        for key, value in found.items():
            np.testing.assert_array_equal(value.astype(expected[key].dtype), expected[key])
            kept = "bfloat16" if key == "bfloat16" else expected[key].dtype.name
            assert value.dtype.name == kept and value.shape == expected[key].shape


def test_shared_storages_are_read_once_and_cannot_be_changed():
    found = torch_files.load(GOLDEN / "tensors_zip.pth")
    assert np.shares_memory(found["whole"], found["transposed"])
    with pytest.raises(ValueError, match="read-only"):
        found["whole"][0] = 0


def test_a_whole_model_is_refused():
    with pytest.raises(UserError, match=r"needs 'torch\.nn.*Sequential'; .*state_dict"):
        torch_files.load(GOLDEN / "module_zip.pth")


# ---- what older and other versions wrote --------------------------------------------------------


def one(rebuild=made.REBUILD, **changes):
    arguments = {"offset": 0, "size": [2, 2], "strides": [2, 1]} | changes
    where = arguments.pop("where", made.storage("0"))
    return made.tensor(where, *arguments.values(), rebuild)


def write(path, pickled, kind="zip", data=FOUR_BYTES):
    if kind == "zip":
        return made.zip_file(path, pickled, [("0", data)])
    return made.legacy_file(path, pickled, [("0", 4, data)])


def test_python_2_wrote_ordered_dictionaries_as_pairs(tmp_path):
    pair = b"](" + made.python2_text("net.weight") + one(made.OLD_REBUILD) + b"e"
    pickled = made.pickle(made.ORDERED + b"](" + pair + b"e\x85R")
    found = torch_files.load(write(tmp_path / "f.model", pickled, "legacy"))
    np.testing.assert_array_equal(found["net.weight"], FOUR.reshape(2, 2))


def test_big_endian_archives(tmp_path):
    pickled = made.mapping(w=one())
    path = write(tmp_path / "f.pth", pickled, data=FOUR.astype(">f4").tobytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(torch_files.load(path)["w"], FOUR.reshape(2, 2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", "")
    refused(path, "TorchScript")


def test_wrong_byte_orders(tmp_path):
    path = write(tmp_path / "f.pth", made.mapping(w=one()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "middle")
    refused(path, "byte order")
    whole = write(tmp_path / "l.pth", made.mapping(w=one()), "legacy").read_bytes()
    path.write_bytes(whole.replace(b"little_endian\x88", b"little_endian\x89"))
    refused(path, "big-endian")


def test_protocol_4(tmp_path):
    name = b"\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93)R"
    body = b"\x80\x04" + name + b"\x94\x8c\x01w" + one() + b"s}b."
    assert torch_files.load(write(tmp_path / "f.pth", body))["w"].shape == (2, 2)


# ---- hostile files ------------------------------------------------------------------------------


def refused(path, match=None):
    with pytest.raises(UserError, match=match) as error:
        torch_files.load(path)
    text = str(error.value)
    assert "\n" not in text and ";" in text and str(path) in text and len(text) < 500
    return text


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"cos\nsystem\nU\x04true\x85R", r"needs 'os\.system'"),
        (b"cposix\nsystem\nU\x04true\x85R", r"needs 'posix\.system'"),
        (b"c__builtin__\neval\nU\x011\x85R", r"__builtin__\.eval"),
        (b"U\x02osU\x06system\x93U\x04true\x85R", r"needs 'os\.system'"),
        (b"(ios\nsystem\n", "INST"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
        (b"ctorch\nFloatStorage\n)R", "calls torch.FloatStorage"),
        (b"\x82\x01", "EXT1"),
        (b"U\x01x)R", "something else where _Global"),
        (b"ccollections\nOrderedDict\nK\x01R", "tuple"),
        (b"ccollections\nOrderedDict\nK\x01\x85R", "list"),
        (b"}K\x01a", "list"),
        (b"]K\x01K\x02s", "dict"),
        (b"]K\x01b", "dict"),
        (b"K\x01Q", "other than a storage"),
        (b"(U\x06modulecos\nsystem\ntQ", "os.system"),
        (b"(U\x06moduleNNNt" b"Q", "whole pickled model"),
        (b"(U\x07storageNU\x010U\x03cpuK\x04tQ", "not described"),
        (b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ\xff\xff\xff\xfftQ", "not described"),
        (b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04K\x07tQ", "other than"),
        (b"}K\x01}s", "no tensors"),
        (b"K\x05", "no mapping"),
        (b"}]K\x01s", "keys"),
        (b"}()K\x01u", "keys"),
        (b"}K\x01s", None),
        *[(body, None) for body in (b"a", b"u", b"t", b"\x85", b"h\x09", b"2", b"")],
        (b"L" + b"9" * 10000 + b"L\n", None),
        (b"X\xff\xff\xff\xffabc", None),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc", None),
        (b"\x8b\xff\xff\xff\x7f", None),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\xff}", None),
        (b"X\x01\x00\x00\x00\xff", None),
        (b"\x00", None),
    ],
)  # fmt: skip
def test_programs_are_not_run(tmp_path, monkeypatch, kind, body, match):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("it was run"))
    refused(write(tmp_path / "f.pth", made.pickle(body), kind), match if kind == "zip" else None)


BIG = 1 << 50


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": -1}, {"offset": 1}, {"offset": BIG}, {"size": [3, 2]}, {"size": [-1, -1]},
        {"size": [2, 2, 1]}, {"strides": [-2, 1]}, {"strides": [3, 1]}, {"strides": [BIG, BIG]},
        {"size": [BIG, 0]}, {"size": [BIG], "strides": [0]}, {"size": [5], "strides": [0]},
        {"size": [1] * 9, "strides": [1] * 9}, {"size": [1 << 39] * 8, "strides": [0] * 8},
        {"where": b"N"}, {"where": made.storage("0", length=BIG)},
        {"where": made.storage("0", length=5)}, {"where": made.storage("0", "Double")},
        {"where": made.storage("1")}, {"where": made.storage("../data.pkl")},
        {"where": made.storage("0", "ComplexFloat")},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_tensors_stay_within_their_storages(tmp_path, kind, changes):
    refused(write(tmp_path / "f.pth", made.mapping(w=one(**changes)), kind))


def test_a_storage_has_one_description(tmp_path):
    other = made.tensor(made.storage("0", "Int"), 0, [2, 2], [2, 1])
    refused(write(tmp_path / "f.pth", made.mapping(a=one(), b=other)), "two ways")


def test_empty_tensors_cost_nothing(tmp_path):
    shape = {"size": [1 << 30, 1 << 30, 1 << 30, 0], "strides": [0, 0, 0, 0]}
    refused(write(tmp_path / "f.pth", made.mapping(w=one(**shape))))
    found = torch_files.load(write(tmp_path / "f.pth", made.mapping(w=one(size=[0, 4]))))
    assert found["w"].shape == (0, 4)


def itself():
    return b"}q\x00(U\x01ah\x00u"


def doubled():
    """Each list holds the one before it twice: 2 ** 60 leaves."""
    body = b"](" + one() + b"eq\x000"
    for _ in range(60):
        body += b"](h\x00h\x00eq\x000"
    return body + b"}U\x01ah\x00s"


def deep():
    return b"}U\x01a" + b"]" * 20_000 + b"a" * 19_999 + b"s"


def steps():
    return b"N0" * 200_000


def memo():
    return b"N" + b"\x94" * 400_000


def again():
    """A long list made into a dictionary again and again."""
    pair = made.text("k") + b"N\x86q\x01"
    body = pair + b"](" + b"h\x01" * 20_000 + b"e\x85q\x02" + made.ORDERED + b"q\x030"
    return body + b"h\x03h\x02R0" * 50_000


def long_names():
    name = made.text("x" * 10_000_000)
    return b"}" + name + b"](" + one() + b"q\x00" + b"h\x00" * 20_000 + b"es"


def long_key():
    return b"}" + made.text("x" * 1_000_000) + one() + b"s"


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (itself, "without end"), (doubled, "without end"), (deep, "without end"),
        (steps, "steps"), (memo, "steps"), (again, "steps"), (long_names, "keys"),
        (long_key, "keys"),
    ],
)  # fmt: skip
def test_endless_and_inflated_contents(tmp_path, body, match):
    path = write(tmp_path / "f.pth", made.pickle(body()))
    start = time.process_time()
    refused(path, match)
    assert time.process_time() - start < 20


def test_two_tensors_of_one_name(tmp_path):
    inner = b"}(" + made.text("b.c") + one() + b"u"
    other = b"}(" + made.text("c") + one() + b"u"
    body = b"}(" + made.text("a") + inner + made.text("a.b") + other + b"u"
    refused(write(tmp_path / "f.pth", made.pickle(body)), "two tensors")


@pytest.mark.parametrize("name", ["tensors_zip.pth", "tensors_legacy.pth"])
def test_truncated_anywhere(tmp_path, name):
    whole = (GOLDEN / name).read_bytes()
    path = tmp_path / "f.pth"
    for length in [*range(0, 300, 7), *range(300, len(whole), 101), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path)


@pytest.mark.parametrize("name", ["tensors_zip.pth", "tensors_legacy.pth"])
def test_damaged_anywhere(tmp_path, name):
    """Flipped bytes give an error that users understand, or tensors."""
    whole = (GOLDEN / name).read_bytes()
    path = tmp_path / "f.pth"
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            torch_files.load(path)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80", b"\x80\x02}.", b"<html>404</html>", b"\xff" * 600]
)
def test_not_torch(tmp_path, content):
    path = tmp_path / "f.pth"
    path.write_bytes(content)
    refused(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nothing.pth", tmp_path):
        refused(path, "not found")


def test_legacy_lists_of_storages(tmp_path):
    good = made.mapping(w=one())
    for storages in (
        [], [("1", 4, FOUR.tobytes())], [("0", 4, FOUR.tobytes())] * 2, [("0", 5, bytes(20))],
        [("0", -1, b"")], [("0", 4, bytes(15))],
    ):  # fmt: skip
        refused(made.legacy_file(tmp_path / "f.pth", good, storages))
    parts = [made.MAGIC, made.PROTOCOL, made.SYSTEM, good]
    for place, other in ((0, b"\x80\x02K\x01."), (1, b"\x80\x02K\x01."), (2, b"\x80\x02N.")):
        wrong = [*parts[:place], other, *parts[place + 1 :]]
        (tmp_path / "f.pth").write_bytes(b"".join(wrong))
        refused(tmp_path / "f.pth")
    (tmp_path / "f.pth").write_bytes(bytes(257) + b"ustar" + bytes(300))
    refused(tmp_path / "f.pth", "tar archive")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives(tmp_path):
    good, data = made.mapping(w=one()), FOUR.tobytes()
    path = tmp_path / "f.pth"
    bomb = made.mapping(w=one(where=made.storage("0", length=1 << 22)))
    made.zip_file(path, bomb, [("0", bytes(1 << 24))], compression=zipfile.ZIP_DEFLATED)
    refused(path, "compressed")
    refused(made.zip_file(path, good, [("0", data), ("0", data)]), "same name")
    refused(made.zip_file(path, good, []), "missing")
    refused(made.zip_file(path, good, [("0", data)], root="a/b"), "data.pkl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/x", "")
    refused(path, "data.pkl")
    made.zip_file(path, b"N" * ((1 << 24) + 1), [("0", data)])
    refused(path, "too large")
    whole = bytearray(made.zip_file(path, good, [("0", data)]).read_bytes())
    entry = whole.rindex(b"PK\x01\x02")  # of the storage: larger than the file
    whole[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(whole)
    refused(path, "larger than the file")
    whole = bytearray(made.zip_file(path, good, [("0", data)]).read_bytes())
    whole[whole.index(data)] ^= 1
    path.write_bytes(whole)
    refused(path, "CRC")
