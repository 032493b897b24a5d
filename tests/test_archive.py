"""Named arrays in one file: what comes back, and what a hostile file can do."""

import io
import os
import pickle
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manual_bptt.archive import read_arrays, write_arrays
from manual_bptt.interop import save_safetensors
from manual_bptt.params import init_params
from reference.vectors import files

NAMES = st.text("abcXYZ019._ é/", min_size=1, max_size=9).filter(
    lambda name: name not in ("file", "allow_pickle")
)
DTYPES = st.sampled_from(
    ["?", "i1", "u2", "<i4", ">i4", "i8", "u8", "f2", "<f4", ">f4", "f8", "g", "U1", "<U7", ">U3"]
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))


def round_trip(path, arrays):
    write_arrays(path, arrays)
    return read_arrays(path)


def assert_same_bits(one, other):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert one.tobytes() == other.tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("archive")


# What comes back


@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_every_array_of_numbers_or_text_comes_back_bit_for_bit(folder, arrays):
    loaded = round_trip(folder / "a.npz", arrays)
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert_same_bits(loaded[name], array)


@given(array=ARRAYS.filter(lambda array: array.ndim > 0))
def test_the_layout_in_memory_changes_no_value(folder, array):
    big = np.zeros([2 * n for n in array.shape], array.dtype)
    big[tuple(slice(None, None, 2) for _ in array.shape)] = array
    strided = big[tuple(slice(None, None, 2) for _ in array.shape)]
    layouts = {"columns": np.asfortranarray(array), "strided": strided, "reversed": array.T}
    loaded = round_trip(folder / "a.npz", layouts)
    assert_same_bits(loaded["columns"], array)
    assert_same_bits(loaded["strided"], array)
    assert_same_bits(loaded["reversed"], array.T)


def test_plain_numbers_and_text_come_back_as_arrays_without_axes(tmp_path):
    loaded = round_trip(
        tmp_path / "a", {"n": 3, "x": 0.1, "yes": True, "tag": "Zürich ☃", "no": ""}
    )
    assert {name: array.item() for name, array in loaded.items()} == {
        "n": 3, "x": 0.1, "yes": True, "tag": "Zürich ☃", "no": "",
    }  # fmt: skip
    assert {array.shape for array in loaded.values()} == {()}


def test_what_was_read_can_be_written_to_and_holds_no_other_array(tmp_path):
    loaded = round_trip(tmp_path / "a", {"a": np.zeros(3), "b": np.zeros(3)})
    loaded["a"][:] = 1
    assert not loaded["b"].any()


def test_no_array_at_all_is_an_archive_too(tmp_path):
    assert round_trip(tmp_path / "a", {}) == {}


def test_the_file_is_one_that_numpy_reads_and_its_bytes_depend_on_the_arrays_alone(tmp_path):
    arrays = {"W": np.eye(3), "tag": np.array("x")}
    for name in ("one", "two"):
        write_arrays(tmp_path / name, arrays)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with np.load(tmp_path / "one", allow_pickle=False) as file:
        assert set(file.files) == set(arrays)
        assert_same_bits(file["W"], arrays["W"])


def test_only_the_file_of_the_name_given_is_left(tmp_path):
    write_arrays(str(tmp_path / "model"), {"a": 1})
    write_arrays(tmp_path / "model", {"a": 2})
    assert os.listdir(tmp_path) == ["model"]
    assert read_arrays(str(tmp_path / "model"))["a"] == 2


@pytest.mark.parametrize(
    "values",
    [np.array([{}]), np.array([1j]), np.array([b"x"]), np.zeros(2, "M8[s]"), np.zeros(1, "i4,f8")],
)
def test_what_could_not_be_read_is_not_written(tmp_path, values):
    with pytest.raises(ValueError, match=r"'a' holds .*; expected real numbers or text"):
        write_arrays(tmp_path / "file", {"good": 1, "a": values})
    assert os.listdir(tmp_path) == []


# Hostile files


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def header(shape, descr="'<f8'", order="False", magic=b"\x93NUMPY\x01\x00"):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n".encode("latin1")
    return magic + struct.pack("<H", len(text)) + text


def members(*named, method=ZIP_STORED):
    """Return an archive of the (name, content) given."""
    file = io.BytesIO()
    with ZipFile(file, "w", method) as out:
        for name, content in named:
            out.writestr(ZipInfo(name), content, method)
    return file.getvalue()


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **options)
    return file.getvalue()


def numpy_savez(save, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def two_of_one_name():
    """Return an archive of a.npy and b.npy, the second renamed to the first."""
    return members(("a.npy", npy(1)), ("b.npy", npy(2))).replace(b"b.npy", b"a.npy")


def with_flag(bit):
    """Return an archive whose only member carries a general purpose flag, in both headers."""
    content = bytearray(members(("a.npy", npy(np.zeros(3)))))
    content[6] |= bit
    content[content.index(b"PK\x01\x02") + 8] |= bit
    return bytes(content)


def declared(size):
    """Return an archive whose directory and header agree on bytes that are not there."""
    start = header(f"({size:10d},)", "'|u1'")
    made = bytearray(members(("a.npy", start + bytes(100))))
    at = made.index(b"PK\x01\x02")
    made[at + 20 : at + 28] = struct.pack("<II", len(start) + size, len(start) + size)
    return bytes(made)


def nested(n):
    """Return an archive of n arrays, each of which holds all that follow it: quadratic in memory.

    (Fifield, A better zip bomb, WOOT 2019; here without compression.)
    """
    body, heads = b"", []
    for i in reversed(range(n)):
        name = f"{i:04d}.npy".encode()
        content = header(f"({len(body)},)", "'|u1'") + body
        crc, size = zlib.crc32(content), len(content)
        local = struct.pack("<4s5HIIIHH", b"PK\3\4", 20, 0, 0, 0, 33, crc, size, size, len(name), 0)
        heads.append((name, crc, size, len(local + name + content)))
        body = local + name + content
    directory = b"".join(
        struct.pack(
            "<4s6HIIIHHHHHII",
            b"PK\1\2", 20, 20, 0, 0, 0, 33, crc, size, size, len(name), 0, 0, 0, 0, 0,
            len(body) - from_end,
        )
        + name
        for name, crc, size, from_end in heads
    )  # fmt: skip
    end = struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, n, n, len(directory), len(body), 0)
    return body + directory + end


HUGE = "(2**60,)"
FILES = {
    "nothing": (b"", "not a zip file"),
    "text": (b"a,b\n1,2\n" * 40, "not a zip file"),
    "a pickle": (pickle.dumps(Bomb()), "not a zip file"),
    "a single array": (npy(np.zeros(3)), "not a zip file"),
    "the start of an archive": (b"PK\x03\x04 and no more", "not a zip file"),
    "an end without a start": (b"PK\x05\x06" + b"\xff" * 18, None),
    "objects": (members(("a.npy", npy(np.array([Bomb()]), allow_pickle=True))), "holds object"),
    "objects by savez": (numpy_savez(np.savez, a=np.array([Bomb()])), "holds object"),
    "objects in a record": (
        members(("a.npy", header("(1,)", "[('x', '|O')]") + pickle.dumps(Bomb()))),
        "'a.npy' holds .*expected real numbers or text",
    ),
    "a pickle instead of an array": (members(("a.npy", pickle.dumps(Bomb()))), "magic string"),
    "a pickle beside an array": (
        members(("a.npy", npy(1)), ("b.pkl", pickle.dumps(Bomb()))),
        "'b.pkl' is not an array",
    ),
    "compressed": (numpy_savez(np.savez_compressed, a=np.zeros(10**6)), "'a.npy' is compressed"),
    "a compressed text": (members(("a.npy", b" " * 10**6), method=ZIP_DEFLATED), "is compressed"),
    "two of one name": (two_of_one_name(), "two arrays of one name"),
    "two of one name but for a null": (
        members(("a.npy", npy(1)), ("b.npyXb", npy(2))).replace(b"b.npyXb", b"a.npy\0b"),
        "two arrays of one name",
    ),
    "encrypted": (with_flag(1), "encrypted"),
    "a patch": (with_flag(0x20), "patched data"),
    "a folder": (members(("a/", b"")), "'a/' is not an array"),
    "an empty member": (members(("a.npy", b"")), "EOF"),
    "magic alone": (members(("a.npy", b"\x93NUMPY\x01\x00")), "EOF"),
    "wrong magic": (members(("a.npy", header("(0,)", magic=b"\x93NUMPX\x01\x00"))), "magic string"),
    "version 2": (members(("a.npy", npy(np.zeros(3), version=(2, 0)))), "unknown version"),
    "a header beyond the end": (members(("a.npy", npy(1)[:60])), "EOF"),
    "a header of code": (members(("a.npy", header("__import__('pytest').fail()"))), "malformed"),
    "a header of arithmetic": (members(("a.npy", header(HUGE))), "malformed|not valid"),
    "a header that is no dict": (
        members(("a.npy", b"\x93NUMPY\x01\x00\x03\x00(1)")),
        "not a dictionary",
    ),
    "a header with more keys": (
        members(("a.npy", header("(0,), 'more': 1"))),
        "does not contain the correct keys",
    ),
    "a deep header": (members(("a.npy", header("-" * 9000 + "1"))), None),
    "a nested header": (members(("a.npy", header("[" * 150 + "]" * 150))), None),
    "a long header": (members(("a.npy", header("(0,)" + " " * 11000))), "large"),
    "an unknown dtype": (members(("a.npy", header("(1,)", "'<q9'"))), "descr"),
    "no dtype": (members(("a.npy", header("(1,)", "7"))), None),
    "huge": (members(("a.npy", header(f"({2**40},)"))), "declares"),
    "huge both ways": (members(("a.npy", header(f"({2**31}, {2**31}, {2**31})"))), "declares"),
    "huge, and an axis of none": (members(("a.npy", header(f"({2**70}, 0)"))), None),
    "a product of 2^64": (members(("a.npy", header(f"({2**32}, {2**32})"))), "declares"),
    "a product of 2^64 + 1 bytes": (
        members(("a.npy", header(f"({2**61 + 1},)") + bytes(8))),
        "declares",
    ),
    "a number of thousands of digits": (
        members(("a.npy", header("(0x" + "f" * 9000 + ",)"))),
        None,
    ),
    "negative": (members(("a.npy", header("(-3,)") + bytes(24))), "declares"),
    "negative twice": (members(("a.npy", header("(-1, -3)") + bytes(24))), "declares"),
    "many axes": (members(("a.npy", header("(" + "1," * 100 + ")") + bytes(8))), None),
    "a size that is no integer": (members(("a.npy", header("(3.0,)") + bytes(24))), "shape is not"),
    "too few bytes": (members(("a.npy", header("(3,)") + bytes(23))), "in 23 bytes"),
    "too many bytes": (members(("a.npy", header("(3,)") + bytes(25))), "in 25 bytes"),
    "huge text": (members(("a.npy", header("(1,)", "'<U500000000'"))), "declares"),
    "text that takes no bytes": (members(("a.npy", header(f"({2**40},)", "'<U0'"))), None),
    "text that is not Unicode": (
        members(("a.npy", header("()", "'<U1'") + b"\0\0\x11\0")),
        "not Unicode",
    ),
    "a directory that promises 3 GB": (declared(3 * 2**30), "are declared, in a file of"),
    "a directory that promises some bytes more": (declared(500), "are declared, in a file of"),
    "arrays that hold each other": (nested(1000), "are declared, in a file of"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("default")  # of NumPy, on reading what it takes for an old header
def test_a_hostile_file_is_refused_without_running_or_allocating_anything(tmp_path, kind):
    content, message = FILES[kind]
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            read_arrays(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(content) + 2**20  # the parser of headers takes some of its own
    assert os.listdir(tmp_path) == ["a.npz"]


def test_the_hostile_files_are_sound_but_for_what_is_wrong_with_them(tmp_path):
    path = tmp_path / "a.npz"
    for content in (
        members(("a.npy", header("(3,)") + bytes(24))),
        members(("a.npy", header("(1,)", "'<U1'") + b"\xff\xff\x10\0")),
        with_flag(0),
        declared(100),
        nested(1),
    ):
        path.write_bytes(content)
        [name] = read_arrays(path)
        assert name in ("a", "0000")
    content = nested(3)
    with ZipFile(io.BytesIO(content)) as file:  # some versions of Python read no such members
        for member in file.infolist():
            start = member.header_offset + 30 + len(member.filename)
            assert zlib.crc32(content[start : start + member.file_size]) == member.CRC


def test_names_with_parts_of_a_path_are_names_and_nothing_is_written(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / "a.npz"
    names = ["../up.npy", "/tmp/manual-bptt-absolute.npy", "a/b.npy", ".npy"]
    path.write_bytes(members(*((name, npy(1)) for name in names)))
    assert list(read_arrays(path)) == [name.removesuffix(".npy") for name in names]
    assert os.listdir(tmp_path) == ["inner"]
    assert os.listdir(inner) == ["a.npz"]
    assert not Path("/tmp/manual-bptt-absolute.npy").exists()


def small_archive(path):
    arrays = {"W": np.random.default_rng(0).standard_normal((3, 2)), "n": np.arange(3), "t": "abc"}
    write_arrays(path, arrays)
    return path.read_bytes(), {name: np.asarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_flipped_byte_is_refused_or_harmless(tmp_path, mask):
    path = tmp_path / "a.npz"
    content, arrays = small_archive(path)
    refused = 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
        try:
            loaded = read_arrays(path)
        except ValueError:
            refused += 1
            continue
        assert set(loaded) == set(arrays)
        for name, array in arrays.items():
            assert_same_bits(loaded[name], array)
    assert refused > sum(array.nbytes for array in arrays.values())


def test_every_truncated_file_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    content, _ = small_archive(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError):  # noqa: PT011
            read_arrays(path)


@given(st.data())
def test_bytes_changed_at_random_are_refused_or_read_as_arrays(folder, data):
    path = folder / "b.npz"
    content = bytearray(small_archive(path)[0])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    path.write_bytes(content)
    try:
        loaded = read_arrays(path)
    except ValueError:
        return
    assert {array.dtype.kind for array in loaded.values()} <= set("biufU")


def test_a_file_that_cannot_be_opened_is_an_os_error(tmp_path):
    for path in (tmp_path / "none", tmp_path, tmp_path / "a" / "b"):
        with pytest.raises(OSError, match=r"No such file|Is a directory"):
            read_arrays(path)


# A failing write


@pytest.mark.parametrize("at", ["savez", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, at, error):
    path = tmp_path / "a.npz"
    write_arrays(path, {"a": 1})
    before = path.read_bytes()

    def fail(file, *args, **arrays):
        if at == "savez":
            file.write(b"half")
        raise error

    where = {"savez": np, "fsync": os, "replace": Path}[at]
    with monkeypatch.context() as patched:
        patched.setattr(where, at, fail)
        with pytest.raises(type(error)):
            write_arrays(path, {"a": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_arrays(path, {"a": np.zeros(1000)}),
        lambda path: save_safetensors(path, init_params(2, 3, 1)),
        lambda path: files._write(path, b"a golden vector"),
    ],
    ids=["arrays", "safetensors", "golden vectors"],
)
def test_a_new_file_is_on_the_disk_before_it_takes_the_place_of_the_old(
    write, tmp_path, monkeypatch
):
    path, done = tmp_path / "a.npz", []
    replace = Path.replace

    def note_sync(descriptor):
        done.append(("sync", os.fstat(descriptor).st_size))

    def note_replace(self, target):
        done.append(("replace", self.stat().st_size))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write(path)
    size = path.stat().st_size
    assert done == [("sync", size), ("replace", size)]


def test_a_folder_that_is_not_there_is_an_os_error_and_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_arrays(tmp_path / "none" / "a.npz", {"a": 1})
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_the_file_stays(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        write_arrays(tmp_path / "a.npz", {"a": 1})
    assert os.listdir(tmp_path) == ["a.npz"]


def test_text_of_the_last_code_point_comes_back(tmp_path):
    text = "a" + chr(sys.maxunicode)
    assert round_trip(tmp_path / "a", {"t": text})["t"].item() == text
