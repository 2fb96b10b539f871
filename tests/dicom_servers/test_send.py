"""Results sent to a real server: what arrives, what a rerun does, what is said and what is not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian
from typer.testing import CliRunner

from sam2unet_core.batch.folder import FolderLock
from sam2unet_core.cli import app
from sam2unet_core.dicom.servers import Parcel, Tls, parse_destination, send_files

ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1"
BY_WEB_AND_NODE = pytest.mark.parametrize("way", ["web", "node"])


def send(out: Path, to: str, *options: str):
    return CliRunner().invoke(app, ["send", str(out), "--to", to, *options])


def sent_paths(out: Path) -> list[str]:
    return [json.loads(line)["path"] for line in (out / "sent.jsonl").read_text().splitlines()]


def manifest_paths(out: Path) -> list[str]:
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return list(dict.fromkeys(line["outputs"][0]["path"] for line in lines))


def uids(out: Path) -> list[str]:
    return sorted(str(dcmread(file).SOPInstanceUID) for file in out.rglob("*.dcm"))


def parcels(out: Path) -> list[Parcel]:
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()[:-1]]
    return [Parcel(each["outputs"][0]["path"], each["outputs"][0]["sha256"]) for each in lines]


@BY_WEB_AND_NODE
def test_every_file_arrives_unchanged_video_too_and_in_the_manifests_order(orthanc, five, way):
    result = send(five, getattr(orthanc, way))
    assert result.exit_code == 0, result.output
    assert "5 files sent" in result.output
    assert orthanc.instances() == uids(five)
    assert sent_paths(five) == manifest_paths(five)
    stored = orthanc.stored()
    for file in five.rglob("*.dcm"):
        ours, theirs = dcmread(file), stored[str(dcmread(file).SOPInstanceUID)]
        (five / "back.dcm").write_bytes(theirs)
        back = dcmread(five / "back.dcm")
        assert back.file_meta.TransferSyntaxUID == ours.file_meta.TransferSyntaxUID
        assert back == ours


@BY_WEB_AND_NODE
def test_a_rerun_sends_nothing_again_and_another_address_gets_everything(orthanc, five, way):
    ways = {"web": orthanc.web, "node": orthanc.node}
    assert send(five, ways.pop(way)).exit_code == 0
    orthanc.clear()
    result = send(five, getattr(orthanc, way))
    assert result.exit_code == 0
    assert "0 files sent" in result.output
    assert "5 sent before" in result.output
    assert orthanc.instances() == []
    (other,) = ways.values()
    assert "5 files sent" in send(five, other).output
    assert orthanc.instances() == uids(five)


@BY_WEB_AND_NODE
def test_after_a_server_is_killed_half_way_a_rerun_sends_the_rest(start, five, way):
    server = start()
    ports = (server.http, server.dicom)
    destination = parse_destination(getattr(server, way), tls=Tls())

    def kill_after_two(done: int, _total: int) -> None:
        if done == 2:
            server.kill()

    outcome = send_files(
        five,
        parcels(five),
        to=destination,
        tls=Tls(),
        calling_ae="TEST",
        progress=kill_after_two,
    )
    assert (outcome.sent, outcome.left, outcome.complete) == (2, 3, False)
    assert "run this again" in outcome.stopped
    assert sent_paths(five) == manifest_paths(five)[:2]
    result = send(five, getattr(server, way))
    assert result.exit_code == 3  # nobody is there
    assert "5 files are left" not in result.output
    assert "3 files are left" in result.output
    again = start(ports=ports)
    result = send(five, getattr(again, way))
    assert result.exit_code == 0, result.output
    assert "3 files sent" in result.output
    assert "2 sent before" in result.output
    assert again.instances() == uids(five)


def test_a_node_that_aborts_within_a_file_stops_the_run_and_that_file_is_not_noted(
    node_that, studies, make_results
):
    out = make_results(studies["endoscopy"].files)
    seen = []

    def handler(event):
        seen.append(event.request.AffectedSOPInstanceUID)
        if len(seen) == 2:
            event.assoc.abort()
        return 0x0000

    result = send(out, node_that(handler))
    assert result.exit_code == 3
    assert "ended the connection" in result.output
    assert "2 files are left" in result.output
    assert sent_paths(out) == manifest_paths(out)[:1]


def test_one_refused_file_is_named_and_the_others_are_sent(node_that, studies, make_results):
    out = make_results(studies["endoscopy"].files)
    answers = iter([0x0000, 0xA700, 0xB000])  # stored, out of resources, stored with a warning
    result = send(out, node_that(lambda _event: next(answers)))
    assert result.exit_code == 3
    refused = manifest_paths(out)[1]
    assert f"{refused}: refused by the server: status 0xA700" in result.output
    assert sent_paths(out) == [manifest_paths(out)[0], manifest_paths(out)[2]]


def test_a_kind_of_object_that_a_node_does_not_take_is_named(node_that, five):
    result = send(five, node_that(lambda _event: 0x0000))
    assert result.exit_code == 3
    assert "does not accept Video Endoscopic Image Storage" in result.output
    assert len(sent_paths(five)) == 3


def test_a_node_that_speaks_only_implicit_little_endian_gets_the_same_pixels(
    node_that, studies, make_results
):
    out = make_results(studies["endoscopy"].files[:1])
    got = []

    def handler(event):
        got.append((event.context.transfer_syntax, event.dataset))
        return 0x0000

    assert send(out, node_that(handler, syntaxes=[ImplicitVRLittleEndian])).exit_code == 0
    ((syntax, dataset),) = got
    assert syntax == ImplicitVRLittleEndian
    assert dataset.PixelData == dcmread(studies["endoscopy"].files[0]).PixelData


def test_the_calling_title_is_the_one_given(node_that, studies, make_results):
    out = make_results(studies["endoscopy"].files[:1])
    titles = []

    def handler(event):
        titles.append(event.assoc.requestor.ae_title)
        return 0x0000

    assert send(out, node_that(handler), "--calling-ae", "RESEARCH 1").exit_code == 0
    assert titles == ["RESEARCH 1"]


def test_a_wrong_called_title_is_said(orthanc, five):
    result = send(five, orthanc.node.replace("ORTHANC", "NOBODY"))
    assert result.exit_code == 3
    assert "the server rejected the association" in result.output
    assert "check the AE titles" in result.output
    assert not (five / "sent.jsonl").exists()


@pytest.mark.parametrize("form", ["ANY@127.0.0.1:{}", "dicomweb+http://127.0.0.1:{}/dicom-web"])
def test_nobody_listening_ends_with_3(port, five, form):
    result = send(five, form.format(port))
    assert result.exit_code == 3
    assert "no connection" in result.output
    assert "5 files are left" in result.output


def test_a_wrong_path_of_a_service_is_said(orthanc, five):
    result = send(five, orthanc.web.replace("dicom-web", "nothing-here"))
    assert result.exit_code == 3
    assert "HTTP 404" in result.output


def test_no_redirect_of_a_web_service_is_followed(five, httpd, port):
    address = httpd(307, {"Location": f"http://127.0.0.1:{port}/studies"})
    result = send(five, f"dicomweb+{address}/dicom-web")
    assert result.exit_code == 3
    assert "redirects to another address" in result.output


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (202, "{}", "not confirmed: HTTP 202"),
        (409, "{}", "refused by the server: HTTP 409"),
        (
            200,
            '{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}',
            "failure reason 0x0110",
        ),
    ],
)
def test_a_web_service_that_says_no_in_any_of_its_ways_is_understood(
    five, httpd, status, body, message
):
    kind = {"Content-Type": "application/dicom+json; charset=utf-8"}
    result = send(five, f"dicomweb+{httpd(status, kind, body)}/dicom-web")
    assert result.exit_code == 3
    assert result.output.count(message) == 5
    assert not (five / "sent.jsonl").exists()


def test_a_service_that_wants_a_password_gets_it_from_netrc(start, five, tmp_path, monkeypatch):
    server = start(AuthenticationEnabled=True, RegisteredUsers={"ann": "secret"})
    result = send(five, server.web)
    assert result.exit_code == 3
    assert "put them into .netrc" in result.output
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert send(five, server.web).exit_code == 0


def test_a_file_that_was_changed_or_is_gone_is_not_sent(orthanc, five):
    changed, gone, *_ = manifest_paths(five)
    with (five / changed).open("ab") as stream:
        stream.write(b"\0")
    (five / gone).unlink()
    result = send(five, orthanc.web)
    assert result.exit_code == 3
    assert f"{changed}: differs from the manifest" in result.output
    assert f"{gone}: cannot be read" in result.output
    assert sent_paths(five) == manifest_paths(five)[2:]


def test_a_path_out_of_the_folder_is_not_sent(orthanc, five):
    first, *others = parcels(five)
    (five / first.path).rename(five.parent / "outside.dcm")
    outcome = send_files(
        five,
        [Parcel("../outside.dcm", first.sha256), *others],
        to=parse_destination(orthanc.web, tls=Tls()),
        tls=Tls(),
        calling_ae="TEST",
    )
    assert outcome.problems == (("../outside.dcm", "lies outside the results folder"),)
    assert (outcome.sent, outcome.complete) == (4, False)
    assert len(orthanc.instances()) == 4


def test_a_torn_record_costs_one_file_sent_twice_and_no_more(orthanc, five):
    assert send(five, orthanc.web).exit_code == 0
    record = five / "sent.jsonl"
    record.write_bytes(record.read_bytes()[:-30])
    result = send(five, orthanc.web)
    assert "1 files sent" in result.output
    assert "4 sent before" in result.output
    assert "0 files sent" in send(five, orthanc.web).output


@BY_WEB_AND_NODE
def test_no_uid_and_no_patient_is_in_output_logs_or_the_record(orthanc, five, way, caplog):
    secrets = {"Phantom^Drawn", "PHANTOM0", *uids(five)}
    secrets |= {str(dcmread(file).StudyInstanceUID) for file in five.rglob("*.dcm")}
    with caplog.at_level(logging.DEBUG):
        good = send(five, getattr(orthanc, way)).output
        bad = send(five, getattr(orthanc, way).replace("ORTHANC", "NO").replace("web", "x")).output
    text = good + bad + caplog.text + (five / "sent.jsonl").read_text()
    assert not [secret for secret in secrets if secret in text]
    assert logging.getLogger("pynetdicom").propagate
    assert logging.getLogger("urllib3").propagate


def test_quiet_says_nothing_but_errors(orthanc, five):
    result = send(five, orthanc.web, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_a_folder_in_use_ends_with_4(orthanc, five):
    with FolderLock(five):
        assert send(five, orthanc.web).exit_code == 4
    assert orthanc.instances() == []
