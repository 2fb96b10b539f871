"""Latency of a warm worker for one slice: `python benchmarks/worker_latency.py`.

A client writes a 512 x 512 slice into the exchange folder, sends the request and reads the mask:
the round trip of the 3D Slicer module without Slicer's own part. Overhead is the round trip minus
the network's time in the same request, so load on the machine affects both alike. The network in
the same process is measured for comparison. The network is the bundle's starter.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam2unet_core import protocol
from sam2unet_core.segmenter import Segmenter


class Worker:
    """A worker process, with the requests that this measurement needs."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "sam2unet_core.cli", "worker", "--exchange", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._number = 0

    def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Return the result of a request."""
        self._number += 1
        line = protocol.encode(protocol.request(self._number, operation, **fields))
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()
        while True:
            event = protocol.decode(self.process.stdout.readline())
            if event["event"] in protocol.TERMINAL:
                if event["event"] != "finished":
                    raise SystemExit(f"{operation}: {event}")
                result: dict[str, Any] = event["result"]
                return result


def main() -> None:
    """Measure, and print milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    values = np.random.default_rng(0).integers(-200, 300, (1, given.side, given.side), np.int16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worker = Worker(folder)
        greeting = _timed(lambda: worker.ask("hello"))
        loading = _timed(lambda: worker.ask("load", task="polyp", device=given.device))

        def segment() -> float:
            before = time.perf_counter()
            array = protocol.write_array(folder, values, name="input.raw")
            window = {"center": 40, "width": 400}
            slices = {"array": array, "channels": "grey", "window": window}
            result.update(worker.ask("segment", input=slices))
            protocol.read_array(folder, result["masks"])
            return 1000 * (time.perf_counter() - before)

        def rethreshold() -> None:
            found = worker.ask("rethreshold", result=result["result"], threshold=0.4)
            protocol.read_array(folder, found["masks"])

        segmenter = Segmenter.open(task="polyp", device=given.device)
        frame = np.zeros((1, given.side, given.side, 3), np.uint8)
        result: dict[str, Any] = {}
        trips, overheads, alone, again = [], [], [], []
        for _ in range(given.times + 3):  # in turns, so that all are timed under the same load
            trips.append(segment())
            overheads.append(trips[-1] - result["ms"]["network"])
            again.append(_timed(rethreshold))
            alone.append(_timed(lambda: segmenter.probabilities(frame)))
        worker.ask("shutdown")
        code = worker.process.wait()
    print(f"{torch.get_num_threads()} threads, {given.side} x {given.side}, {given.device}")
    print(f"start to answer  {greeting:8.1f} ms")
    print(f"load             {loading:8.1f} ms  (PyTorch's import included)")
    _show("round trip", trips[3:])
    _show("network alone", alone[3:])
    _show("overhead", overheads[3:])
    _show("rethreshold", again[3:])
    sys.exit(code)


def _timed(do: Callable[[], object]) -> float:
    """Return the duration of a call in milliseconds."""
    before = time.perf_counter()
    do()
    return 1000 * (time.perf_counter() - before)


def _show(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    worst = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    print(f"{name:16} {statistics.median(ordered):8.1f} ms  (95th percentile {worst:.1f} ms)")


if __name__ == "__main__":
    main()
