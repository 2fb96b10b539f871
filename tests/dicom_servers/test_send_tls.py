"""Encrypted connections: who is trusted, who is not, and what is sent then: nothing."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from sam2unet_core.cli import app


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1, and its key."""

    cert: Path
    key: Path


def send(out: Path, to: str, *options: str):
    return CliRunner().invoke(app, ["send", str(out), "--to", to, *options])


def sent_paths(out: Path) -> list[str]:
    return [json.loads(line)["path"] for line in (out / "sent.jsonl").read_text().splitlines()]


def uids(out: Path) -> list[str]:
    return sorted(str(dcmread(file).SOPInstanceUID) for file in out.rglob("*.dcm"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> tuple[Certificate, Certificate]:
    """Two certificates, neither trusted by the system."""
    folder = tmp_path_factory.mktemp("tls")
    return _certificate(folder, "one"), _certificate(folder, "two")


@pytest.fixture
def https_front() -> Iterator[Callable[..., str]]:
    """Puts TLS before a port of this machine; Debian's Orthanc dies of its own."""
    servers = []

    def call(port: int, certificate: Certificate) -> str:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.cert, certificate.key)

        class Front(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with (
                    suppress(OSError),
                    context.wrap_socket(self.request, server_side=True) as near,
                    socket.create_connection(("127.0.0.1", port)) as far,
                ):
                    back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
                    back.start()
                    _pass_on(near, far)
                    back.join(5)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Front)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_address[1]}"

    yield call
    for server in servers:
        server.shutdown()
        server.server_close()


class TestTls:
    def test_c_store_goes_through_where_the_authority_is_named(
        self, node_that, studies, make_results, certificates
    ):
        out = make_results(studies["endoscopy"].files)
        mine, client = certificates
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client.cert)
        context.load_cert_chain(mine.cert, mine.key)
        context.verify_mode = ssl.CERT_REQUIRED
        address = node_that(lambda _event: 0x0000, context=context)
        trust = ("--tls", "--ca", str(mine.cert))
        result = send(out, address, *trust)
        assert result.exit_code == 3  # the server wants to know us
        assert not (out / "sent.jsonl").exists()
        result = send(out, address, *trust, "--cert", str(client.cert), "--key", str(client.key))
        assert result.exit_code == 0, result.output
        assert len(sent_paths(out)) == 3

    @pytest.mark.parametrize("known", ["nobody", "another"])
    def test_c_store_to_a_server_that_is_not_trusted_is_not_made(
        self, node_that, studies, make_results, certificates, known
    ):
        out = make_results(studies["endoscopy"].files)
        mine, other = certificates
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(mine.cert, mine.key)
        got = []
        address = node_that(lambda event: got.append(event) or 0, context=context)
        ca = ["--ca", str(other.cert)] if known == "another" else []
        result = send(out, address, "--tls", *ca)
        assert result.exit_code == 3
        assert "no secure connection" in result.output
        assert "name the authority to trust with --ca" in result.output
        assert got == []

    def test_c_store_by_tls_to_a_plain_server_is_not_made(self, orthanc, five):
        result = send(five, orthanc.node, "--tls")
        assert result.exit_code == 3
        assert orthanc.instances() == []

    def test_web_goes_through_where_the_authority_is_named_only(
        self, orthanc, five, certificates, https_front, monkeypatch
    ):
        mine, other = certificates
        address = f"dicomweb+{https_front(orthanc.http, mine)}/dicom-web"
        for options in ([], ["--ca", str(other.cert)]):
            result = send(five, address, *options)
            assert result.exit_code == 3
            assert "no secure connection" in result.output
            assert "name the authority to trust with --ca" in result.output
        assert orthanc.instances() == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.cert))  # what is typed goes before it
        assert send(five, address).exit_code == 3
        result = send(five, address, "--ca", str(mine.cert))
        assert result.exit_code == 0, result.output
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        assert orthanc.instances() == uids(five)

    def test_a_bundle_of_the_environment_that_is_not_there_is_named(self, five, port, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "nowhere.pem")
        result = send(five, f"dicomweb+https://127.0.0.1:{port}/x")
        assert result.exit_code == 3
        assert "check REQUESTS_CA_BUNDLE" in result.output


def _certificate(folder: Path, name: str) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    cert_path, key_path = folder / f"{name}.crt", folder / f"{name}.key"
    cert_path.write_bytes(made.public_bytes(pem))
    key_path.write_bytes(secret)
    return Certificate(cert_path, key_path)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
