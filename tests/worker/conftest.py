"""A worker as a real process, a raw client for it, and a small network to load."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sam2unet_core import protocol
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.task import Task, load_preset

PATIENCE_S = 300
SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "worker.schema.json").read_text(encoding="utf-8")
)
COMMAND = [sys.executable, "-m", "sam2unet_core.cli", "worker"]
Event = dict[str, Any]


def _checker(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{name}"}]})


class Client:
    """Speaks to a worker over its standard streams, line by line, without any help of ours.

    Holds what the worker says, and what it takes, against the published schema.

    Args:
        folder: the exchange folder.
        arguments: further ones of the command line.
        command: what starts the worker.
        options: of `subprocess.Popen`.
    """

    def __init__(
        self, folder: Path, *arguments: str, command: list[str] | None = None, **options: Any
    ) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self.noise = b""
        self.process = subprocess.Popen(
            [*(command or COMMAND), "--exchange", str(folder), *arguments],
            **{
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "env": {**os.environ, "OMP_NUM_THREADS": "1"},
                **options,
            },
        )
        self.lines: list[bytes] = []
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._number = 0
        self._requests: dict[int, dict[str, Any]] = {}
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._drain, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            self._events.put(json.loads(line))
        self._events.put(None)

    def _drain(self) -> None:
        for line in self.process.stderr:
            self.noise += line

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, operation: str, **fields: Any) -> int:
        """Send a request and return its number."""
        self._number += 1
        line = {"v": 1, "id": self._number, "op": operation, **fields}
        self._requests[self._number] = line
        self.write(json.dumps(line).encode() + b"\n")
        return self._number

    def next(self) -> Event | None:
        """Return the next event; None at the end of the stream."""
        event = self._events.get(timeout=PATIENCE_S)
        if event is not None:
            _checker("event").validate(event)
            self._check_answer(event)
        return event

    def _check_answer(self, event: Event) -> None:
        request = self._requests.get(event["id"])
        if request is not None and event["event"] == "finished":
            _checker(f"requests/{request['op']}").validate(request)
            _checker(f"results/{request['op']}").validate(event["result"])

    def until_end_of(self, identifier: int | None) -> tuple[Event, list[Event]]:
        """Return the terminal event of a request, and what came before it."""
        before = []
        while (event := self.next()) is not None:
            if event["id"] == identifier and event["event"] in protocol.TERMINAL:
                return event, before
            before.append(event)
        raise AssertionError(f"the worker ended: {self.noise.decode(errors='replace')}")

    def ask(self, operation: str, **fields: Any) -> Event:
        """Send a request and return its terminal event."""
        return self.until_end_of(self.send(operation, **fields))[0]

    def result(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Send a request that has to succeed and return its result."""
        event = self.ask(operation, **fields)
        assert event["event"] == "finished", event
        return event["result"]

    def array(self, reference: dict[str, Any]) -> NDArray[Any]:
        """Read an array, with nothing but NumPy."""
        values = np.fromfile(self.folder / reference["file"], reference["dtype"])
        return values.reshape(reference["shape"])

    def give(self, array: NDArray[Any], name: str = "input.raw") -> dict[str, Any]:
        """Write an array and return the reference to it."""
        (self.folder / name).write_bytes(array.tobytes())
        shape = list(array.shape)
        return {"file": name, "dtype": array.dtype.str, "shape": shape, "order": "C"}

    def segment(self, array: NDArray[Any], **fields: Any) -> dict[str, Any]:
        """Segment an array, which has to succeed."""
        channels = "rgb" if array.ndim == 4 else "grey"
        given = {"array": self.give(array), "channels": channels}
        return self.result("segment", input=given, **fields)

    def files(self) -> list[str]:
        """Names in the exchange folder, but for the client's own."""
        return sorted(path.name for path in self.folder.iterdir() if path.name[0] in "wk")

    def close(self) -> None:
        """End the worker, however it is."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        for thread in self._threads:
            thread.join()


Start = Callable[..., Client]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start workers that end with the test."""
    clients: list[Client] = []

    def call(*arguments: str, **options: Any) -> Client:
        folder = options.pop("folder", tmp_path / f"exchange{len(clients)}")
        clients.append(Client(folder, *arguments, **options))
        return clients[-1]

    yield call
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def small_task() -> Task:
    """A polyp task at 64 x 64."""
    return replace(load_preset("polyp"), name="small", image_size=(64, 64), weights=None)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the shared worker may read."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="session")
def weights(root: Path, small_task: Task) -> Path:
    """A nano network of random weights whose probabilities differ from pixel to pixel."""
    torch.manual_seed(3)
    network = SAM2UNet("nano").eval()
    with torch.no_grad():
        network.head.weight.mul_(20)
    path = root / "small.safetensors"
    save_full(network, path, task=small_task)
    return path


@pytest.fixture(scope="session")
def shared_worker(root: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory):
    """One warm worker for the tests that leave it as it was."""
    client = Client(tmp_path_factory.mktemp("exchange"), "--allow-root", str(root))
    client.result("load", weights=str(weights), device="cpu")
    yield client
    client.close()


@pytest.fixture
def worker(shared_worker: Client, weights: Path) -> Client:
    """The shared worker with the small network as the current one."""
    shared_worker.result("load", weights=str(weights), device="cpu")
    return shared_worker


@pytest.fixture
def request_fits() -> Callable[[dict[str, Any]], bool]:
    """Returns whether the published schema takes a request."""
    return lambda request: _checker("request").is_valid(request)


@pytest.fixture
def pictures() -> NDArray[np.uint8]:
    """Three frames `(3, 48, 80, 3)` of smooth colours, none like another."""
    noise = np.random.default_rng(5).random((3, 6, 10, 3))
    frames = np.repeat(np.repeat(noise, 8, axis=1), 8, axis=2)
    return (255 * frames).astype(np.uint8)


@pytest.fixture
def dciodvfy() -> Callable[[Path], list[str]]:
    """Returns the errors that dicom3tools' validator finds."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy on the path")

    def validate(path: Path) -> list[str]:
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, check=False)
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert said.strip(), "the validator said nothing at all"
        return [line for line in said.splitlines() if line.startswith("Error")]

    return validate
