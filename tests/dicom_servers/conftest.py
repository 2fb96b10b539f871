"""A real Orthanc on loopback, results to send, and certificates made on the spot."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt

from sam2unet_core.files import file_sha256
from sam2unet_core.phantom.dicom import WrittenStudy, write_studies

ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass
class Orthanc:
    """A server of our own, with its storage in a folder of the test."""

    process: subprocess.Popen[bytes]
    http: int
    dicom: int

    @property
    def web(self) -> str:
        return f"dicomweb+http://127.0.0.1:{self.http}/dicom-web"

    @property
    def node(self) -> str:
        return f"ORTHANC@127.0.0.1:{self.dicom}"

    def instances(self) -> list[str]:
        """The SOP instance UIDs it holds, asked of its own interface."""
        url = f"http://127.0.0.1:{self.http}/instances?expand"
        found = requests.get(url, timeout=300).json()
        return sorted(each["MainDicomTags"]["SOPInstanceUID"] for each in found)

    def stored(self) -> dict[str, bytes]:
        """The files it holds, by SOP instance UID."""
        base = f"http://127.0.0.1:{self.http}/instances"
        files = {}
        for each in requests.get(f"{base}?expand", timeout=300).json():
            uid = each["MainDicomTags"]["SOPInstanceUID"]
            files[uid] = requests.get(f"{base}/{each['ID']}/file", timeout=300).content
        return files

    def clear(self) -> None:
        base = f"http://127.0.0.1:{self.http}"
        for patient in requests.get(f"{base}/patients", timeout=300).json():
            requests.delete(f"{base}/patients/{patient}", timeout=300)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start_orthanc(folder: Path, *, ports: tuple[int, int] | None = None, **more: object) -> Orthanc:
    """Start a server; `more` goes into its configuration."""
    http, dicom = ports or (free_port(), free_port())
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "HttpBindAddresses": ["127.0.0.1"],
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "ConcurrentJobs": 1,
        **more,
    }
    (folder / "storage").mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")],
            stdout=log,
            stderr=log,
        )
    server = Orthanc(process, http, dicom)
    for port in (http, dicom):
        _await_port(process, port, folder / "orthanc.log")
    return server


@pytest.fixture(scope="session")
def orthanc_server(tmp_path_factory) -> Iterator[Orthanc]:
    need_orthanc()
    server = start_orthanc(tmp_path_factory.mktemp("orthanc"))
    yield server
    server.kill()


@pytest.fixture
def orthanc(orthanc_server) -> Orthanc:
    """The server, empty."""
    orthanc_server.clear()
    return orthanc_server


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Orthanc]]:
    """Starts a server for one test; a second call with the same ports finds what it held."""
    need_orthanc()
    servers = []

    def call(**more: object) -> Orthanc:
        servers.append(start_orthanc(tmp_path / "own-orthanc", **more))
        return servers[-1]

    yield call
    for server in servers:
        server.kill()


@pytest.fixture
def port() -> int:
    """A port on which nobody listens."""
    return free_port()


@pytest.fixture(scope="session")
def studies(tmp_path_factory) -> dict[str, WrittenStudy]:
    """Phantom studies: single frames, a JPEG multi-frame object, an H.264 video."""
    written = write_studies(tmp_path_factory.mktemp("studies") / "phantom", frames=3, size=(64, 64))
    return {study.name: study for study in written}


@pytest.fixture
def five(studies, tmp_path) -> Path:
    """A results folder with five DICOM files, a video among them, and a picture."""
    out = tmp_path / "results"
    files = [file for name in ("video", "endoscopy", "cine") for file in studies[name].files]
    return write_results(out, files)


@pytest.fixture
def make_results(tmp_path) -> Callable[..., Path]:
    """Makes a results folder that holds the files it is given."""
    return lambda files: write_results(tmp_path / "made", list(files))


@pytest.fixture
def httpd() -> Iterator[Callable[..., str]]:
    """Starts a web server that answers every POST with one status, headers and body."""
    servers = []

    def call(status: int, headers: dict[str, str], body: str = "") -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield call
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass
class Answer:
    """What a server of `web_that` says; `length` announces more or less than there is."""

    status: int = 200
    kind: str = "application/dicom+json"
    body: bytes = b""
    length: int | None = None
    by_its_end: bool = False


@pytest.fixture
def web_that() -> Iterator[Callable[..., str]]:
    """Starts a web server that answers with what `respond(path, body)` returns; gives its URL."""
    servers = []

    def call(respond: Callable[[str, bytes], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                answer = respond(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(answer.status)
                if answer.kind:
                    self.send_header("Content-Type", answer.kind)
                if not answer.by_its_end:
                    length = len(answer.body) if answer.length is None else answer.length
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(answer.body)

            def do_GET(self) -> None:
                self.headers["Content-Length"] = "0"
                self.do_POST()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"dicomweb+http://127.0.0.1:{server.server_address[1]}/dicom-web"

    yield call
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def node_that():
    """Starts a small C-STORE server that answers with `handler`; gives its address."""
    servers = []

    def call(handler, *, syntaxes=None, classes=(ENDOSCOPIC,), context=None, title="SMALL"):
        entity = AE(ae_title=title)
        for sop_class in classes:
            entity.add_supported_context(sop_class, syntaxes or [ExplicitVRLittleEndian])
        server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, handler)],
            ssl_context=context,
        )
        servers.append(server)
        return f"{title}@127.0.0.1:{server.server_address[1]}"

    yield call
    for server in servers:
        server.shutdown()


def write_results(out: Path, files: list[Path]) -> Path:
    """Write a folder as `segment` leaves it, which holds these DICOM files."""
    (out / "ab").mkdir(parents=True)
    lines = []
    for number, file in enumerate(files):
        name = f"ab/{9 - number}.seg.dcm"  # so that the manifest's order is not that of names
        shutil.copyfile(file, out / name)
        outputs = [{"path": name, "sha256": file_sha256(out / name), "kind": "seg"}]
        outputs.append({"path": "ab/picture.png", "sha256": "0" * 64, "kind": "overlay"})
        lines.append(
            {
                "schema": 1,
                "id": f"{number:016x}",
                "source_sha256": None,
                "kind": "stack",
                "study": "ab",
                "series": "cd",
                "status": "done",
                "reason": None,
                "message": "",
                "frames": 1,
                "frames_with_findings": 1,
                "outputs": outputs,
                "key": "k",
                "ms": {"decode": 0, "network": 0, "write": 0},
            }
        )
    lines.append(lines[0])  # a rerun adds lines; each file is sent once
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (out / "manifest.jsonl").write_text(text)
    return out


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch) -> None:
    """Loopback is reached directly, and trust is the system's, whatever this machine says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need_orthanc() -> None:
    if not (shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists()) or not PLUGIN.exists():
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed (orthanc-dicomweb)")


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)  # a server of another make tells no one that it is ready
        else:
            return
    process.kill()
    pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
