"""The words themselves: what is written comes back, and nothing else is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sam2unet_core import protocol
from sam2unet_core.protocol import ProtocolError


def test_slicers_copy_is_the_same_file(repository: Path) -> None:
    ours = repository / "sam2unet_core" / "protocol.py"
    copy = repository / "slicer_extension" / "SAM2UNet" / "SAM2UNetLib" / "protocol.py"
    assert copy.read_bytes() == ours.read_bytes()


def test_it_needs_the_standard_library_alone(repository: Path) -> None:
    code = (
        "import runpy, sys; before = set(sys.modules); "
        f"runpy.run_path({str(repository / 'sam2unet_core' / 'protocol.py')!r}); "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_message_is_one_line_of_ascii_and_comes_back() -> None:
    message = {"v": 1, "id": 3, "text": "M\u00fcller\nline", "numbers": [1, 2.5, None, True]}
    line = protocol.encode(message)
    assert line.isascii()
    assert line.index(b"\n") == len(line) - 1
    assert protocol.decode(line) == message


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[1]", "holds a list"),
        (b'{"a": NaN}', "no JSON"),
        (b'{"a": 1e999}', "no JSON"),
        (b"[" * 200_000, "nests too deeply"),
    ],
)
def test_lines_that_are_no_message_are_refused(line: bytes, match: str) -> None:
    with pytest.raises(ProtocolError, match=match) as caught:
        protocol.decode(line)
    assert caught.value.kind == "bad_request"


def test_lines_of_more_than_a_mebibyte_are_refused_both_ways() -> None:
    with pytest.raises(ProtocolError, match="1048577 bytes") as caught:
        protocol.decode(b" " * (2**20 + 1))
    assert caught.value.kind == "too_large"
    with pytest.raises(ProtocolError, match="at most 1048576"):
        protocol.encode({"text": "x" * 2**20})


def test_numbers_that_are_not_finite_are_not_written() -> None:
    with pytest.raises(ProtocolError, match="cannot hold"):
        protocol.encode({"value": float("nan")})


@pytest.mark.parametrize("dtype", [t for t in protocol.DTYPES if t != "|b1"])
def test_arrays_of_every_type_come_back(tmp_path: Path, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    reference = protocol.write_array(tmp_path, array.transpose(2, 0, 1))
    assert reference["shape"] == [4, 2, 3]
    raw = (tmp_path / reference["file"]).read_bytes()
    assert raw == array.transpose(2, 0, 1).copy().tobytes()
    back = protocol.read_array(tmp_path, reference)
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back, array.transpose(2, 0, 1))


def test_big_endian_arrays_are_written_little_endian(tmp_path: Path) -> None:
    reference = protocol.write_array(tmp_path, np.array([1, 258], ">u2"), name="a.raw")
    assert reference == {"file": "a.raw", "dtype": "<u2", "shape": [2], "order": "C"}
    assert (tmp_path / "a.raw").read_bytes() == b"\x01\x00\x02\x01"


@pytest.mark.parametrize(
    "name", ["../a", "a/b", "a\\b", "", ".", "..", ".hidden", "C:a", "a\0", "\u00e4", "x" * 129, 3]
)
def test_only_plain_names_are_file_names(tmp_path: Path, name: object) -> None:
    assert not protocol.is_safe_basename(name)
    with pytest.raises(ProtocolError, match="file name") as caught:
        protocol.inside(tmp_path, name)
    assert caught.value.kind == "not_allowed"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"shape": [5]}, "bad_request"),
        ({"shape": [-4]}, "bad_request"),
        ({"shape": [4.0]}, "bad_request"),
        ({"shape": [True, 4]}, "bad_request"),
        ({"shape": [2**31 - 1, 2**31 - 1]}, "too_large"),
        ({"dtype": "O"}, "bad_request"),
        ({"dtype": ">u1"}, "bad_request"),
        ({"order": "F"}, "bad_request"),
        ({"file": "../a.raw"}, "not_allowed"),
        ({"file": "b.raw"}, "not_found"),
        ({"offset": 3}, "bad_request"),
    ],
)
def test_references_that_do_not_fit_their_file_are_refused(
    tmp_path: Path, change: dict[str, object], kind: str
) -> None:
    (tmp_path / "a.raw").write_bytes(b"1234")
    reference = {"file": "a.raw", "dtype": "|u1", "shape": [4], "order": "C"}
    assert protocol.read_array(tmp_path, reference).tolist() == [49, 50, 51, 52]
    with pytest.raises(ProtocolError, match=r"array|name") as caught:
        protocol.read_array(tmp_path, {**reference, **change})
    assert caught.value.kind == kind


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS: links and pipes")
def test_links_and_pipes_are_no_array_files(tmp_path: Path) -> None:
    import os

    (tmp_path / "secret").write_bytes(b"1234")
    (tmp_path / "link.raw").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe.raw")
    for name in ("link.raw", "pipe.raw"):
        reference = {"file": name, "dtype": "|u1", "shape": [4], "order": "C"}
        with pytest.raises(ProtocolError, match="array file that is") as caught:
            protocol.read_array(tmp_path, reference)
        assert caught.value.kind == "not_allowed"
