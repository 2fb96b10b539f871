"""Fetching from servers that answer oddly: all that was announced comes, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom import dcmread

from sam2unet_core.dicom.servers import fetch_study, local_paths
from sam2unet_core.errors import NetworkError

STUDY, SERIES = "1.2.840.99.1", "1.2.840.99.2"
JSON = "application/dicom+json"
PARTS = 'multipart/related; type="application/dicom"; boundary=line'


def element(value: object, vr: str = "UI") -> dict:
    return {"vr": vr, "Value": [value]}


@pytest.fixture
def files(studies) -> dict[str, bytes]:
    """The bytes of three instances by their UIDs."""
    paths = studies["endoscopy"].files
    return {str(dcmread(path).SOPInstanceUID): path.read_bytes() for path in paths}


@pytest.fixture
def archive(web_that, answer, files):
    """Starts a small archive; each argument replaces one of its answers, and gives its address.

    Args of the fixture's function:
        instances: answers the search for instances; gets the offset.
        series: answers the search for series.
        part: answers a retrieval; gets the bytes of the instance.
    """

    def listed(offset: int) -> object:
        entries = [{"0020000E": element(SERIES), "00080018": element(uid)} for uid in files]
        return answer(kind=JSON, body=json.dumps(entries[offset:]).encode())

    def of_series() -> object:
        entry = {
            "0020000D": element(STUDY),
            "0020000E": element(SERIES),
            "00201209": element(len(files), "IS"),
        }
        return answer(kind=JSON, body=json.dumps([entry]).encode())

    def whole(content: bytes) -> object:
        return answer(kind=PARTS, body=multipart(content))

    def start(*, instances=listed, series=of_series, part=whole) -> str:
        def respond(path: str, _body: bytes) -> object:
            place, _, query = path.partition("?")
            last = place.rsplit("/", 1)[1]
            if last in files:
                return part(files[last])
            offset = int(dict(each.split("=") for each in query.split("&")).get("offset", 0))
            return instances(offset) if last == "instances" else series()

        return f"{web_that(respond)}?study={STUDY}"

    return start


def multipart(content: bytes, end: bytes = b"\r\n--line--\r\n") -> bytes:
    return b"--line\r\nContent-Type: application/dicom\r\n\r\n" + content + end


def test_a_small_archive_that_says_all_is_fetched(archive, files, tmp_path):
    paths = fetch_study(archive(), tmp_path)
    assert [str(dcmread(path).SOPInstanceUID) for path in paths] == list(files)


ODD = [
    ("text/html", b"<html>please log in</html>"),
    ("text/html", b""),
    ("", b""),
    (JSON, b""),
    (JSON, b"{}"),
    (JSON, b"{"),
    (JSON, b"5"),
    (JSON, b'["1.2.3"]'),
    (JSON, b'[{"00080018": "1.2.3"}]'),
    (JSON, b'[{"00080018": {"vr": "UI"}}]'),
    (JSON, b'{"error": "please log in"}'),
    (JSON, b'[{"00080018": {"vr": "UI", "Value": ["../../etc/passwd"]}}]'),
]


@pytest.mark.parametrize(("kind", "body"), ODD)
def test_a_list_that_is_none_is_said_with_status_and_content_type(
    archive, answer, tmp_path, kind, body
):
    address = archive(instances=lambda _offset: answer(200, kind, body))
    with pytest.raises(NetworkError, match=r"answered HTTP 200 \(") as raised:
        fetch_study(address, tmp_path)
    assert (kind or "no content type") in str(raised.value)
    assert "login" in str(raised.value)
    assert STUDY not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "body"), ODD)
def test_a_list_of_series_that_is_none_is_an_error(archive, answer, tmp_path, kind, body):
    address = archive(series=lambda: answer(200, kind, body)).replace("study", "series")
    with pytest.raises(NetworkError, match=r"answered HTTP 200 \(|0 studies hold"):
        fetch_study(address, tmp_path)


@pytest.mark.parametrize(("status", "kind", "body"), [(204, "", b""), (200, JSON, b"[]")])
def test_an_empty_list_is_a_study_that_is_not_there(archive, answer, tmp_path, status, kind, body):
    address = archive(instances=lambda _offset: answer(status, kind, body))
    with pytest.raises(NetworkError, match="no such study or series; check the UID"):
        fetch_study(address, tmp_path)


def test_a_list_that_is_shorter_than_announced_is_refused(archive, answer, files, tmp_path):
    first = {"0020000E": element(SERIES), "00080018": element(next(iter(files)))}
    body = json.dumps([first]).encode()  # the same whatever the offset
    address = archive(instances=lambda _offset: answer(kind=JSON, body=body))
    with pytest.raises(NetworkError, match="states 3 instances of a series but lists 1"):
        fetch_study(address, tmp_path)


def test_a_whole_series_that_the_list_leaves_out_is_missed(archive, answer, tmp_path):
    entries = [
        {"0020000E": element(SERIES), "00201209": element(3, "IS")},
        {"0020000E": element("1.2.840.99.3"), "00201209": element("40", "IS")},
    ]
    address = archive(series=lambda: answer(kind=JSON, body=json.dumps(entries).encode()))
    with pytest.raises(NetworkError, match="states 40 instances of a series but lists 0"):
        fetch_study(address, tmp_path)
    assert len(fetch_study(f"{address}&series={SERIES}", tmp_path)) == 3  # which was asked for


@pytest.mark.parametrize("status", [400, 404, 501])
def test_an_archive_that_does_not_search_for_series_is_believed(archive, answer, tmp_path, status):
    address = archive(series=lambda: answer(status, "text/plain", b"no such search"))
    assert len(fetch_study(address, tmp_path)) == 3


def test_an_archive_that_wants_a_password_for_its_series_is_not(archive, answer, tmp_path):
    address = archive(series=lambda: answer(401, "text/plain", b""))
    with pytest.raises(NetworkError, match="HTTP 401"):
        fetch_study(address, tmp_path)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>please log in</html>"),
        ("text/html", b""),
        (JSON, b"{}"),
        (JSON, b""),
        ("application/dicom", b"not DICOM at all"),
        ("application/dicom", b""),
        (PARTS, b""),
        (PARTS, b"--line--\r\n"),
        (PARTS, b"--line\r\nContent-Type: application/dicom"),
        (PARTS, multipart(b"")),
        (PARTS, multipart(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0")),
        (PARTS, multipart(b'{"error": "please log in"}')),
        ("multipart/related", b"please log in"),
        ("", b"please log in"),
    ],
)
def test_an_instance_that_is_none_is_one_clear_error(archive, answer, tmp_path, kind, body):
    address = archive(part=lambda _content: answer(200, kind, body))
    with pytest.raises(NetworkError, match=r"answered HTTP 200 \(|another instance|truncated"):
        fetch_study(address, tmp_path)


@pytest.mark.parametrize("by_its_end", [False, True])
@pytest.mark.parametrize("kept", [1.0, 0.999, 0.5, 0.1])
def test_a_multipart_answer_without_its_end_is_not_an_instance(
    archive, answer, tmp_path, kept, by_its_end
):
    def cut(content: bytes) -> object:
        part = content[: int(kept * len(content))]
        return answer(200, PARTS, multipart(part, end=b""), by_its_end=by_its_end)

    with pytest.raises(NetworkError, match="truncated in transfer; run this again"):
        fetch_study(archive(part=cut), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0.999, 0.5])
def test_an_instance_without_parts_that_ends_early_is_not_an_instance(
    archive, answer, tmp_path, kept
):
    def cut(content: bytes) -> object:
        part = content[: int(kept * len(content))]
        return answer(200, "application/dicom", part, by_its_end=True)

    with pytest.raises(NetworkError, match="truncated in transfer"):
        fetch_study(archive(part=cut), tmp_path)


def test_an_instance_without_parts_is_taken_as_it_is(archive, answer, tmp_path):
    address = archive(part=lambda content: answer(200, "application/dicom", content))
    assert len(fetch_study(address, tmp_path)) == 3


@pytest.mark.parametrize(
    "kind",
    [
        'multipart/related; boundary="line"; type="application/dicom"',
        "Multipart/Related; type=application/dicom; boundary=line",
        "multipart/related;boundary=line;type=application/dicom",
    ],
)
def test_the_boundary_may_be_written_in_any_way(archive, answer, tmp_path, kind):
    address = archive(
        part=lambda content: answer(200, kind, multipart(content, b"\r\n--line--\r\nthat is all"))
    )
    assert len(fetch_study(address, tmp_path)) == 3


def test_a_connection_that_breaks_within_an_instance_is_said(archive, answer, tmp_path):
    def broken(content: bytes) -> object:
        return answer(200, PARTS, multipart(content)[:500], length=len(content) + 100)

    with pytest.raises(NetworkError, match="was lost"):
        fetch_study(archive(part=broken), tmp_path)


def test_what_is_cut_off_is_not_segmented(archive, answer):
    address = archive(part=lambda content: answer(200, PARTS, multipart(content, end=b"")))
    with (
        pytest.raises(NetworkError, match="truncated"),
        local_paths([address]),
    ):
        pytest.fail("nothing may be segmented")


def test_the_same_instance_for_every_request_is_refused(archive, answer, files, tmp_path):
    first = next(iter(files.values()))
    address = archive(part=lambda _content: answer(200, PARTS, multipart(first)))
    with pytest.raises(NetworkError, match="another instance than requested"):
        fetch_study(address, tmp_path)
    assert len(list(Path(tmp_path).iterdir())) == 1
