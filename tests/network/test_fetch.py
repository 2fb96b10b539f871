"""Fetching from a server on loopback that breaks off, lies and serves the wrong thing."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from typer.testing import CliRunner

from sam2unet_core.cli.main import app
from sam2unet_core.errors import WeightsError
from sam2unet_core.network import VARIANTS, SAM2UNet
from sam2unet_core.network.checkpoint.cache import TrunkEntry, read_index
from sam2unet_core.network.checkpoint.fetch import DownloadSource, Retry, fetch

NAME = "test_trunk"


@dataclass
class Server:
    """What the server sends, and what it was asked.

    Attributes:
        drops: after how many bytes each of the first connections breaks; None does not break.
        lie: added to the length that is announced.
    """

    body: bytes
    drops: list[int | None] = field(default_factory=list)
    etag: str | None = '"one"'
    ranges: bool = True
    lie: int = 0
    status: list[int] = field(default_factory=list)
    kind: str = "application/octet-stream"
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        if self.status:
            request.send_error(self.status.pop(0))
            return
        start = self._start(request, wanted)
        body = self.body[start:]
        if wanted and start and not body:
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            end = len(self.body)
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Type", self.kind)
        request.send_header("Content-Length", str(len(body) + self.lie))
        request.end_headers()
        limit = self.drops.pop(0) if self.drops else None
        request.wfile.write(body if limit is None else body[:limit])

    def _start(self, request: BaseHTTPRequestHandler, wanted: str | None) -> int:
        if not wanted or not self.ranges or request.headers.get("If-Range") != self.etag:
            return 0
        return int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # a client that has what it announced goes away
                server.answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def trunk(build: Callable) -> bytes:
    """A trunk of `nano` as a file."""
    buffer = io.BytesIO()
    torch.save(build("nano").state_dict(), buffer)
    return buffer.getvalue()


def get(server: Server, *, sha256: str | None = None, variant: str = "nano") -> Path:
    """Fetch with no waiting between connections."""
    entry = TrunkEntry(NAME, VARIANTS[variant], f"{server.url}/{NAME}.pt", sha256)
    return fetch(entry, source=DownloadSource(retry=Retry(attempts=4, sleep=lambda _: None)))


def test_file_is_fetched_noted_and_not_fetched_again(trunk: bytes, cache: Path) -> None:
    with serving(Server(trunk)) as server:
        path = get(server)
        assert path == cache / f"{NAME}.pt"
        assert path.read_bytes() == trunk
        assert read_index(cache)[path.name].sha256 == hashlib.sha256(trunk).hexdigest()
        assert get(server) == path
    assert server.asked == [None]
    assert sorted(p.name for p in cache.iterdir()) == ["index.json", path.name]


def test_dropped_connection_is_continued_where_it_broke_off(trunk: bytes) -> None:
    with serving(Server(trunk, drops=[98_304, 50_000])) as server:
        assert get(server).read_bytes() == trunk
    assert server.asked == [None, "bytes=98304-", "bytes=147456-"]


def test_interrupted_fetch_is_continued_by_the_next_run(trunk: bytes, cache: Path) -> None:
    with serving(Server(trunk, drops=[65_536, 0, 0, 0])) as server:
        message = "gave up after 4 connections .*65536 bytes are kept: run the same command again"
        with pytest.raises(WeightsError, match=message):
            get(server)
        assert not (cache / f"{NAME}.pt").exists()
        assert get(server).read_bytes() == trunk
    assert server.asked[-1] == "bytes=65536-"


def test_server_that_ignores_ranges_is_asked_for_the_whole(trunk: bytes) -> None:
    with serving(Server(trunk, drops=[100_000], ranges=False)) as server:
        assert get(server).read_bytes() == trunk


def test_without_a_validator_nothing_is_glued_together(trunk: bytes) -> None:
    with serving(Server(trunk, drops=[100_000], etag=None)) as server:
        assert get(server).read_bytes() == trunk
    assert server.asked == [None, None]


def test_file_that_changed_between_two_runs_is_fetched_anew(trunk: bytes) -> None:
    with serving(Server(b"\x80" * len(trunk), drops=[9_000, 0, 0, 0])) as server:
        with pytest.raises(WeightsError, match="gave up"):
            get(server)
        server.body, server.etag = trunk, '"two"'
        assert get(server).read_bytes() == trunk


def test_length_that_is_too_large_is_detected(trunk: bytes, cache: Path) -> None:
    with (
        serving(Server(trunk, lie=1000)) as server,
        pytest.raises(WeightsError, match="gave up after 4 connections"),
    ):
        get(server)
    assert not (cache / f"{NAME}.pt").exists()


def test_length_that_is_too_small_is_detected(trunk: bytes, cache: Path) -> None:
    with (
        serving(Server(trunk, lie=-1000)) as server,
        pytest.raises(WeightsError, match=r"not this trunk and was deleted.*cut off or damaged"),
    ):
        get(server)
    assert list(cache.iterdir()) == []


def test_busy_server_is_asked_again_and_a_missing_file_is_not(trunk: bytes) -> None:
    with serving(Server(trunk, status=[503, 429])) as server:
        assert get(server).read_bytes() == trunk
    with serving(Server(trunk, status=[404])) as server:
        entry = TrunkEntry("gone", VARIANTS["nano"], f"{server.url}/gone.pt")
        with pytest.raises(WeightsError, match="answered 404 Not Found"):
            fetch(entry)
    assert len(server.asked) == 1


def test_web_page_instead_of_weights_is_refused(cache: Path) -> None:
    page = b"<html>Please sign in</html>"
    with (
        serving(Server(page, kind="text/html; charset=utf-8")) as server,
        pytest.raises(WeightsError, match="sent a web page instead of weights"),
    ):
        get(server)
    with (
        serving(Server(page)) as server,
        pytest.raises(WeightsError, match=r"deleted.*is a web page"),
    ):  # and one that calls itself a file
        get(server)
    assert list(cache.iterdir()) == []


def test_trunk_of_another_size_is_refused(trunk: bytes, cache: Path) -> None:
    with (
        serving(Server(trunk)) as server,
        pytest.raises(WeightsError, match=r"deleted.*does not fit the network 'starter'"),
    ):
        get(server, variant="starter")
    assert list(cache.iterdir()) == []


def test_wrong_published_hash_is_refused(trunk: bytes, cache: Path) -> None:
    with serving(Server(trunk)) as server:
        with pytest.raises(WeightsError, match="the published sha256 is 0000"):
            get(server, sha256="0" * 64)
        assert list(cache.iterdir()) == []
        assert get(server, sha256=hashlib.sha256(trunk).hexdigest()).is_file()


def test_hash_first_seen_is_checked_from_then_on(trunk: bytes, build: Callable) -> None:
    with serving(Server(trunk)) as server:
        path = get(server)
        path.write_bytes(trunk + b" ")
        with pytest.raises(WeightsError, match="the first seen sha256 is"):
            get(server)
        path.unlink()
        buffer = io.BytesIO()
        torch.save(build("nano", seed=7).state_dict(), buffer)
        server.body = buffer.getvalue()
        with pytest.raises(WeightsError, match=r"deleted.*the first seen sha256 is"):
            get(server)
        server.body = trunk
        assert get(server).read_bytes() == trunk


def test_full_disk_is_one_clear_error_and_nothing_is_lost(
    trunk: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    with serving(Server(trunk, drops=[49_152, 0, 0, 0])) as server:
        with pytest.raises(WeightsError, match="gave up"):
            get(server)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
        with pytest.raises(WeightsError, match=r"the disk is full \(\d+ bytes are needed"):
            get(server)
        monkeypatch.undo()
        monkeypatch.setenv("SAM2UNET_CACHE", str(cache.parent))
        assert get(server).read_bytes() == trunk
    assert server.asked[-1] == "bytes=49152-"


def test_unreachable_server_is_one_clear_error() -> None:
    with serving(Server(b"")) as server:
        pass
    with pytest.raises(WeightsError, match=r"gave up .*copy the file to this machine"):
        get(server)


def test_proxy_variables_are_honoured(trunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Server(trunk)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        entry = TrunkEntry(NAME, VARIANTS["nano"], f"http://weights.invalid/{NAME}.pt")
        assert fetch(entry).read_bytes() == trunk


def test_command_fetches_from_a_mirror(cache: Path) -> None:
    with torch.device("meta"):
        shapes = SAM2UNet("tiny").state_dict()
    buffer = io.BytesIO()
    torch.save({k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}, buffer)
    with serving(Server(buffer.getvalue())) as server:
        arguments = ["weights", "fetch", "sam2_hiera_tiny", "--base-url", server.url + "/"]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert str(cache / "sam2_hiera_tiny.pt") in result.output.replace("\n", "")
    assert (cache / "sam2_hiera_tiny.pt").read_bytes() == buffer.getvalue()


def test_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(WeightsError, match="unknown trunk 'sam3'; choose from sam2_hiera_tiny"):
        fetch("sam3")
