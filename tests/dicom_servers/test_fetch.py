"""Studies fetched from a real server, and segmented from there."""

from __future__ import annotations

import json
import logging
import os
import stat
import tempfile
from pathlib import Path

import pytest
import torch
from pydicom import dcmread
from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.dicom.servers import Tls, fetch_study, local_paths, parse_destination, send_files
from sam2unet_core.dicom.servers.outbox import Parcel
from sam2unet_core.errors import ConfigError, NetworkError
from sam2unet_core.files import file_sha256
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.task import load_preset


@pytest.fixture
def filled(orthanc, studies):
    """The server with the phantom studies, the video among them."""
    for study in studies.values():
        for file in study.files:
            outcome = send_files(
                file.parent,
                [Parcel(file.name, file_sha256(file))],
                to=parse_destination(orthanc.web, tls=Tls()),
                tls=Tls(),
                calling_ae="TEST",
            )
            assert outcome.complete, outcome
    yield orthanc
    for study in studies.values():
        (study.files[0].parent / "sent.jsonl").unlink(missing_ok=True)


def uid(study, name: str) -> str:
    return str(dcmread(study.files[0])[name].value)


@pytest.mark.parametrize("name", ["endoscopy", "cine", "video"])
def test_a_study_comes_back_as_it_was_whatever_its_encoding(filled, studies, tmp_path, name):
    study = uid(studies[name], "StudyInstanceUID")
    paths = fetch_study(f"{filled.web}?study={study}", tmp_path)
    key = lambda dataset: dataset.SOPInstanceUID  # noqa: E731
    ours = sorted((dcmread(path) for path in studies[name].files), key=key)
    back = sorted((dcmread(path) for path in paths), key=key)
    assert back == ours
    for one, other in zip(back, ours, strict=True):
        assert one.file_meta.TransferSyntaxUID == other.file_meta.TransferSyntaxUID
    assert not [path for path in paths if study in path.name]


def test_a_series_is_found_without_its_study(filled, studies, tmp_path):
    series = uid(studies["endoscopy"], "SeriesInstanceUID")
    assert len(fetch_study(filled.web, tmp_path, series=series)) == 3
    both = f"{filled.web}?study={uid(studies['endoscopy'], 'StudyInstanceUID')}&series={series}"
    assert len(fetch_study(both, tmp_path)) == 3


def test_names_are_the_same_in_every_run(filled, studies, tmp_path):
    study = uid(studies["endoscopy"], "StudyInstanceUID")
    names = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        names.append([p.name for p in fetch_study(filled.web, folder, study=study)])
    assert names[0] == names[1]


def test_a_study_that_is_not_there_is_said_without_its_uid(filled, tmp_path):
    for query in ("study=1.2.3.4", "series=1.2.3.4", "study=1.2.3.4&series=1.2.3.5"):
        with pytest.raises(NetworkError, match=r"check the UID|0 studies hold") as raised:
            fetch_study(f"{filled.web}?{query}", tmp_path)
        assert "1.2.3.4" not in str(raised.value)


def test_a_server_that_is_killed_half_way_leaves_no_half_study(start, studies, caplog):
    server = start()
    for file in studies["endoscopy"].files:
        to = parse_destination(server.web, tls=Tls())
        parcel = Parcel(file.name, file_sha256(file))
        send_files(file.parent, [parcel], to=to, tls=Tls(), calling_ae="TEST")
    (studies["endoscopy"].files[0].parent / "sent.jsonl").unlink()
    study = uid(studies["endoscopy"], "StudyInstanceUID")

    def kill_after_one(done: int, _total: int) -> None:
        if done == 1:
            server.kill()

    before = set(Path(tempfile.gettempdir()).glob("sam2unet-*"))
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(NetworkError, match="was lost"),
        local_paths([f"{server.web}?study={study}"], progress=kill_after_one),
    ):
        pytest.fail("nothing may be segmented")
    assert set(Path(tempfile.gettempdir()).glob("sam2unet-*")) == before
    assert study not in caplog.text


def test_fetched_files_are_private_and_gone_afterwards(filled, studies):
    study = uid(studies["endoscopy"], "StudyInstanceUID")
    with local_paths(["here.png", f"{filled.web}?study={study}"]) as (plain, folder):
        assert plain == Path("here.png")
        assert len(list(folder.iterdir())) == 3
        if os.name == "posix":
            assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("dicomweb+http://127.0.0.1/x", "add .study=UID"),
        ("dicomweb+http://127.0.0.1/x?study=../../etc", "not a UID"),
        ("dicomweb+http://127.0.0.1/x?patient=7", "expected .study=UID"),
        ("dicomweb+http://127.0.0.1/x?study=1.2&study=1.3", "each once"),
        ("dicomweb+http:///x?study=1.2", "expected dicomweb"),
    ],
)
def test_an_address_that_says_nothing_to_fetch_is_refused(tmp_path, url, message):
    with pytest.raises(ConfigError, match=message):
        fetch_study(url, tmp_path)


def test_a_list_that_the_server_cuts_is_asked_for_to_its_end(start, studies, tmp_path):
    server = start(LimitFindInstances=2)
    for file in studies["endoscopy"].files:
        to = parse_destination(server.web, tls=Tls())
        parcel = Parcel(file.name, file_sha256(file))
        send_files(file.parent, [parcel], to=to, tls=Tls(), calling_ae="TEST")
    (studies["endoscopy"].files[0].parent / "sent.jsonl").unlink()
    study = uid(studies["endoscopy"], "StudyInstanceUID")
    assert len(fetch_study(server.web, tmp_path, study=study)) == 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    torch.manual_seed(0)
    save_full(SAM2UNet("nano"), path, task=load_preset("polyp"))
    return path


def segment(source: str, out: Path, weights: Path):
    words = ["segment", source, "-o", str(out), "--weights", str(weights), "--device", "cpu"]
    return CliRunner().invoke(app, [*words, "--format", "seg,png"])


@pytest.mark.parametrize("name", ["endoscopy", "video"])
def test_segmenting_from_a_server_gives_what_segmenting_the_files_gives(
    filled, studies, weights, tmp_path, name, caplog
):
    study = uid(studies[name], "StudyInstanceUID")
    address = f"{filled.web}?study={study}"
    with caplog.at_level(logging.DEBUG):
        result = segment(address, tmp_path / "far", weights)
    assert result.exit_code == 0, result.output
    assert study not in result.output + caplog.text
    assert segment(str(studies[name].files[0].parent), tmp_path / "near", weights).exit_code == 0
    far, near = (sorted((tmp_path / each).rglob("*.seg.dcm")) for each in ("far", "near"))
    assert len(far) == len(near) == 1
    assert dcmread(far[0]).PixelData == dcmread(near[0]).PixelData
    assert dcmread(far[0]).StudyInstanceUID == study
    again = segment(address, tmp_path / "far", weights)  # continues: the names have not changed
    assert again.exit_code == 0
    assert "0 frames" in again.output
    public = [path for path in (tmp_path / "far").glob("*") if path.suffix in (".jsonl", ".json")]
    assert not [path for path in public if study in path.read_text()]


def test_segment_and_send_make_a_round_trip(filled, studies, weights, tmp_path):
    study = uid(studies["endoscopy"], "StudyInstanceUID")
    out = tmp_path / "out"
    assert segment(f"{filled.web}?study={study}", out, weights).exit_code == 0
    assert CliRunner().invoke(app, ["send", str(out), "--to", filled.node]).exit_code == 0
    lines = [json.loads(line) for line in (out / "sent.jsonl").read_text().splitlines()]
    assert [Path(line["path"]).suffixes for line in lines] == [[".seg", ".dcm"]]
    back = fetch_study(filled.web, tmp_path, study=study)
    assert "SEG" in {dcmread(path).Modality for path in back}


def test_segmenting_from_a_server_that_is_not_there_ends_with_3(port, weights, tmp_path):
    address = f"dicomweb+http://127.0.0.1:{port}/dicom-web?study=1.2.3"
    result = segment(address, tmp_path / "out", weights)
    assert result.exit_code == 3
    assert "no connection" in result.output
    assert not (tmp_path / "out").exists()
