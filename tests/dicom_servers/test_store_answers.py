"""What counts as sent: that the server's answer names the instance as stored, and nothing else.

Codes and their meanings are those of PS3.18 tables I.2-1 and I.2-2, PS3.4 table B.2-1 and PS3.7
annex C; the forms of the answers those of PS3.18 annexes F (JSON) and PS3.19 A.1 (XML).
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from sam2unet_core.cli import app

STORED, FAILED, OTHER = "00081199", "00081198", "0008119A"
ANOTHER = "1.2.840.99.7"


def send(out: Path, to: str, *options: str):
    return CliRunner().invoke(app, ["send", str(out), "--to", to, *options])


def notes(out: Path) -> list[dict]:
    path = out / "sent.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def uid_of(body: bytes) -> str:
    """The SOP instance UID of the one object in a multipart body."""
    start = body.index(b"\r\n\r\n") + 4
    end = body.rindex(b"\r\n--", 0, len(body) - 4)
    return str(dcmread(io.BytesIO(body[start:end])).SOPInstanceUID)


def as_json(**sequences: list[tuple[str | None, dict[str, int]]]) -> bytes:
    """An answer in JSON; each item is a UID and its reasons by tag."""
    tags = {"stored": STORED, "failed": FAILED, "others": OTHER}
    content = {}
    for name, items in sequences.items():
        values = []
        for uid, reasons in items:
            item = {tag: {"vr": "US", "Value": [code]} for tag, code in reasons.items()}
            if uid is not None:
                item["00081155"] = {"vr": "UI", "Value": [uid]}
            values.append(item)
        content[tags[name]] = {"vr": "SQ", "Value": values}
    return json.dumps(content).encode()


def as_xml(tag: str, uid: str, reason: str = "", *, namespace: str = "") -> bytes:
    code = f'<Value number="1">{reason[9:]}</Value>'
    more = f'<DicomAttribute tag="{reason[:8]}" vr="US">{code}</DicomAttribute>'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel{namespace}>'
        f'<DicomAttribute tag="{tag}" vr="SQ"><Item number="1">'
        f'<DicomAttribute tag="00081155" vr="UI"><Value number="1">{uid}</Value></DicomAttribute>'
        f"{more if reason else ''}</Item></DicomAttribute></NativeDicomModel>"
    ).encode()


@pytest.fixture
def three(studies, make_results) -> Path:
    """A results folder with three DICOM files."""
    return make_results(studies["endoscopy"].files)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>please log in</html>"),
        ("text/html; charset=utf-8", b""),
        ("application/dicom+json", b"{}"),
        ("application/dicom+json", b""),
        ("application/dicom+json", b"[]"),
        ("application/dicom+json", b"null"),
        ("application/dicom+json", b'"stored"'),
        ("application/dicom+json", b"{"),
        ("application/dicom+json", b"[" * 100_000),
        ("application/dicom+json", b'{"00081199": {"vr": "SQ"}}'),
        ("application/dicom+json", b'{"00081199": {"vr": "SQ", "Value": [null, 5, {}]}}'),
        ("application/json", b'{"status": "ok"}'),
        ("application/dicom+xml", b"<NativeDicomModel/>"),
        ("application/dicom+xml", b"<html/>"),
        ("application/dicom+xml", b"<"),
        ("text/plain", b"OK"),
        ("", b"OK"),
        ("", b""),
    ],
)
@pytest.mark.parametrize("status", [200, 202])
def test_an_answer_that_names_nothing_is_not_taken_for_a_yes(
    three, web_that, answer, kind, body, status
):
    result = send(three, web_that(lambda _path, _body: answer(status, kind, body)))
    assert result.exit_code == 3
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "0 files sent" in result.output
    assert f"HTTP {status} ({kind.partition(';')[0] or 'no content type'}" in result.output
    assert notes(three) == []


def test_a_login_page_ends_the_run_at_the_first_file(three, web_that, answer):
    asked = []

    def respond(path, body):
        asked.append(path)
        return answer(200, "text/html", b"<html>please log in</html>")

    result = send(three, web_that(respond))
    assert asked == ["/dicom-web/studies"]
    assert "whether it requires a login (3 files are left)" in result.output


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("application/dicom+json", lambda uid: as_json(stored=[(uid, {})])),
        ("application/dicom+json", lambda uid: b"[" + as_json(stored=[(uid, {})]) + b"]"),
        ("application/json; charset=utf-8", lambda uid: as_json(stored=[(uid + " ", {})])),
        ("Application/DICOM+JSON", lambda uid: as_json(stored=[(ANOTHER, {}), (uid, {})])),
        ("application/dicom+xml", lambda uid: as_xml(STORED, uid)),
        (
            "application/xml",
            lambda uid: as_xml(
                STORED, uid, namespace=' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"'
            ),
        ),
    ],
)
def test_what_the_answer_names_as_stored_is_sent(three, web_that, answer, status, kind, make):
    result = send(three, web_that(lambda _path, body: answer(status, kind, make(uid_of(body)))))
    assert result.exit_code == 0, result.output
    assert "3 files sent" in result.output
    assert len(notes(three)) == 3


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/dicom+json", as_json(stored=[(ANOTHER, {})])),
        ("application/dicom+json", as_json(failed=[(ANOTHER, {"00081197": 0x0110})])),
        ("application/dicom+xml", as_xml(STORED, ANOTHER)),
    ],
)
def test_another_instance_in_the_answer_is_not_ours(three, web_that, answer, kind, body):
    result = send(three, web_that(lambda _path, _body: answer(200, kind, body)))
    assert result.exit_code == 3
    assert result.output.count("not confirmed: HTTP 200") == 3
    assert ANOTHER not in result.output
    assert notes(three) == []


@pytest.mark.parametrize("status", [200, 202, 409, 400])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x0110, "0x0110 (processing failure)"),
        (0x0122, "0x0122 (SOP class not supported)"),
        (0x0124, "0x0124 (not authorised)"),
        (0x0111, "0x0111 (duplicate SOP instance UID)"),
        (0xA700, "0xA700 (out of resources)"),
        (0xA7FF, "0xA7FF (out of resources)"),
        (0xA901, "0xA901 (the data set does not match its SOP class)"),
        (0xC000, "0xC000 (cannot understand)"),
        (0xCFFF, "0xCFFF (cannot understand)"),
        (0xC122, "0xC122 (transfer syntax not supported)"),
        (0x9999, "failure reason 0x9999\n"),
    ],
)
def test_a_failure_is_told_in_the_standard_s_words(three, web_that, answer, status, code, words):
    def respond(_path, body):
        return answer(status, body=as_json(failed=[(uid_of(body), {"00081197": code})]))

    result = send(three, web_that(respond))
    assert result.exit_code == 3
    assert result.output.count(words) == 3
    assert f"HTTP {status} (application/dicom+json)" in result.output
    assert notes(three) == []


def test_a_failure_in_xml_is_told_as_well(three, web_that, answer):
    def respond(_path, body):
        return answer(409, "application/dicom+xml", as_xml(FAILED, uid_of(body), "00081197=42752"))

    assert send(three, web_that(respond)).output.count("0xA700 (out of resources)") == 3


@pytest.mark.parametrize("sequence", ["failed", "others"])
def test_a_failure_that_names_no_instance_is_the_one_that_was_sent(
    three, web_that, answer, sequence
):
    body = as_json(**{sequence: [(None, {"00081197": 0xC001})]})
    result = send(three, web_that(lambda _path, _body: answer(202, body=body)))
    assert result.output.count("0xC001 (cannot understand)") == 3
    assert notes(three) == []


def test_an_answer_that_says_both_is_not_a_yes(three, web_that, answer):
    def respond(_path, body):
        uid = uid_of(body)
        return answer(body=as_json(stored=[(uid, {})], failed=[(uid, {"00081197": 0x0110})]))

    assert send(three, web_that(respond)).exit_code == 3
    assert notes(three) == []


@pytest.mark.parametrize("body", [b"", b"<html>Conflict</html>", b"{}"])
def test_a_refusal_without_a_reason_says_so(three, web_that, answer, body):
    result = send(three, web_that(lambda _path, _body: answer(409, "text/html", body)))
    assert result.output.count("refused by the server: HTTP 409 (text/html") == 3
    assert result.output.count("no reason given") == 3


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0xB000, "0xB000 (elements were changed)"),
        (0xB006, "0xB006 (elements were discarded)"),
        (0xB007, "0xB007 (the data set does not match its SOP class)"),
        (0xB00E, "0xB00E"),
    ],
)
@pytest.mark.parametrize("way", ["web", "node"])
def test_a_warning_is_stored_and_told(three, web_that, node_that, answer, code, words, way):
    def respond(_path, body):
        return answer(202, body=as_json(stored=[(uid_of(body), {"00081196": code})]))

    address = web_that(respond) if way == "web" else node_that(lambda _event: code)
    result = send(three, address)
    assert result.exit_code == 0
    assert "3 files sent" in result.output
    assert result.output.count(f"stored, but the server warns: {words}") == 3
    assert len(notes(three)) == 3
    assert "warns" not in send(three, address).output


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA700, "0xA700 (out of resources)"),
        (0xA900, "0xA900 (the data set does not match its SOP class)"),
        (0xC123, "0xC123 (cannot understand)"),
        (0x0122, "0x0122 (SOP class not supported)"),
        (0x0124, "0x0124 (not authorised)"),
        (0xFE00, "status 0xFE00\n"),
        (0xFF00, "status 0xFF00\n"),
        (0xD000, "status 0xD000\n"),
    ],
)
def test_a_status_of_c_store_that_is_no_success_is_told_in_words(three, node_that, status, words):
    result = send(three, node_that(lambda _event: status))
    assert result.exit_code == 3
    assert result.output.count(words) == 3
    assert notes(three) == []


def test_what_arrives_is_the_file_bit_by_bit(three, web_that, answer):
    got = []

    def respond(_path, body):
        start = body.index(b"\r\n\r\n") + 4
        got.append(body[start : body.rindex(b"\r\n--", 0, len(body) - 4)])
        return answer(body=as_json(stored=[(uid_of(body), {})]))

    assert send(three, web_that(respond)).exit_code == 0
    assert sorted(got) == sorted(file.read_bytes() for file in three.rglob("*.dcm"))


def test_a_note_of_a_version_that_took_any_answer_for_a_yes_is_not_believed(orthanc, three):
    assert send(three, orthanc.web).exit_code == 0
    orthanc.clear()
    path = three / "sent.jsonl"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 1'))
    result = send(three, orthanc.web)
    assert "3 files sent" in result.output
    assert "before" not in result.output
    assert len(orthanc.instances()) == 3
    assert "3 sent before" in send(three, orthanc.web).output


def test_a_note_of_that_version_about_c_store_is_believed(orthanc, three):
    assert send(three, orthanc.node).exit_code == 0
    path = three / "sent.jsonl"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 1'))
    assert "3 sent before" in send(three, orthanc.node).output


@pytest.mark.parametrize(
    ("way", "words"),
    [("web", "refused by the server: HTTP 400"), ("node", "0xA700 (out of resources)")],
)
def test_a_real_server_s_refusal_is_told_and_the_other_files_are_there(
    orthanc, studies, make_results, tmp_path, way, words
):
    first, second, third = studies["endoscopy"].files
    broken = dcmread(second)
    del broken.StudyInstanceUID, broken.PatientID, broken.SeriesInstanceUID
    broken.save_as(tmp_path / "broken.dcm")
    out = make_results([first, tmp_path / "broken.dcm", third])
    result = send(out, getattr(orthanc, way))
    assert result.exit_code == 3
    assert result.output.count(words) == 1
    assert "2 files sent" in result.output
    assert [note["path"] for note in notes(out)] == ["ab/9.seg.dcm", "ab/7.seg.dcm"]
    assert orthanc.instances() == sorted(
        str(dcmread(file).SOPInstanceUID) for file in (first, third)
    )
