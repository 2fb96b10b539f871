"""What a person may type wrongly, and what may be missing, when results are to be sent."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.dicom.servers import Tls, parse_destination
from sam2unet_core.errors import ConfigError, DataError, MissingExtraError


def send(out: Path, to: str, *options: str):
    return CliRunner().invoke(app, ["send", str(out), "--to", to, *options])


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("somewhere", [], "expected dicomweb"),
        ("AE@host", [], "expected dicomweb"),
        ("AE@host:99999", [], "expected dicomweb"),
        ("@host:104", [], "expected dicomweb"),
        ("MUCH-TOO-LONG-TITLE@host:104", [], "1 to 16 ASCII characters"),
        ("AE@host:104", ["--calling-ae", "a\\b"], "1 to 16 ASCII characters"),
        ("dicomweb+ftp://host/x", [], "expected dicomweb"),
        ("dicomweb+https://ann:secret@host/x", [], "must not contain a password"),
        ("dicomweb+https://host/x?study=1.2", [], "must not have a query"),
        ("dicomweb+http://host/x", ["--tls"], "TLS is requested"),
        ("AE@host:104", ["--ca", "nowhere.pem"], "--ca nowhere.pem: no such file"),
        ("AE@host:104", ["--key", __file__], "--key is given without --cert"),
        ("AE@127.0.0.1:104", ["--ca", __file__], "no certificates in PEM"),
        ("dicomweb+https://127.0.0.1/x", ["--cert", __file__], "no matching certificate and key"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_connected(five, to, options, message):
    result = send(five, to, *options)
    assert isinstance(result.exception, ConfigError)  # which `main` turns into exit code 2
    assert message in str(result.exception)
    assert "secret" not in str(result.exception)


def test_an_address_is_read_and_written_alike():
    for text in ("PACS@10.0.0.5:104", "A B@[::1]:11112", "dicomweb+https://host:8443/a/b"):
        assert str(parse_destination(text, tls=Tls())) == text


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no such folder"), ("", "no manifest")])
def test_a_folder_without_results_is_named(tmp_path, name, message):
    result = send(tmp_path / name, "AE@127.0.0.1:104")
    assert isinstance(result.exception, DataError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    ("to", "library"),
    [("AE@127.0.0.1:1", "pynetdicom"), ("dicomweb+http://127.0.0.1:1/x", "dicomweb-client")],
)
def test_a_missing_library_names_the_extra(five, monkeypatch, to, library):
    known = importlib.import_module

    def without(name: str, package: str | None = None):
        if name in ("pynetdicom", "dicomweb_client.api"):
            raise ImportError(name)
        return known(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    result = send(five, to)
    assert isinstance(result.exception, MissingExtraError)
    assert f"needs {library}" in str(result.exception)
    assert "pip install 'sam2unet[send]'" in str(result.exception)
