"""A full disk, wherever it is met: message and remedy, nothing left, and the next run works."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from SAM2UNetLib import protocol
from SAM2UNetLib.Request import Request
from SAM2UNetLib.Session import Session
from SAM2UNetLib.WorkerProcess import WorkerProcess

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(folder)]
    done = None
    with contextlib.suppress(OSError):
        done = subprocess.run(mount, capture_output=True, check=False)
    if done is None or done.returncode:
        pytest.skip("needs Linux and the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def on_small_disk(scene, small_disk, bundle):
    """A session whose exchange folder lies on that disk."""
    worker = WorkerProcess(
        [sys.executable, "-m", "sam2unet_core.cli", "worker"],
        exchangeParent=small_disk,
        allowRoots=[bundle],
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    session = Session(worker)
    yield session
    session.close()


def ask(node, bundle):
    return Request(node, "volume", bundle=str(bundle), device="cpu", threshold=0.01)


def finish(session):
    while session.isBusy:
        assert session.poll() == []


# 12 pictures of 96 x 96 are 108 KiB: they fit, but not with their probabilities and masks
@pytest.mark.parametrize(("count", "whose"), [(100, "the module's"), (12, "the worker's")])
def test_a_disk_that_is_full_is_told_and_a_smaller_run_works_then(
    on_small_disk, volume, scene, bundle, run, count, whose
):
    session = on_small_disk
    session.start(ask(volume(np.zeros((count, 96, 96), np.uint8)), bundle))
    told = run(session)
    kind, message, remedy = told[-1]
    assert kind == "failed", told
    assert "space" in remedy
    assert os.strerror(errno.ENOSPC) in message or "disk" in message, whose
    finish(session)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert not session.canRethreshold
    assert list(session.worker.exchange.iterdir()) == []
    assert session.worker.isAlive
    session.start(ask(volume(np.zeros((1, 96, 96), np.uint8)), bundle))
    assert run(session)[-1][0] == "finished"


def test_an_exchange_folder_that_cannot_be_filled_leaves_no_stale_state(
    session, volume, scene, bundle, run, monkeypatch
):
    def fails(*_, **__):
        raise FULL

    node = volume(np.zeros((2, 40, 48), np.uint8))
    session.start(ask(node, bundle))
    assert run(session)[-1][0] == "finished"
    session.undo()
    before = set(session.worker.exchange.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(protocol, "write_array", fails)
        session.start(ask(node, bundle))
        kind, message, remedy = run(session)[-1]
    assert kind == "failed"
    assert FULL.strerror in message
    assert "disk space" in remedy
    finish(session)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert set(session.worker.exchange.iterdir()) == before
    assert not session.canRethreshold
    session.start(ask(node, bundle))
    assert run(session)[-1][0] == "finished"


def test_masks_that_cannot_be_read_back_take_the_run_back(
    session, volume, scene, bundle, run, monkeypatch
):
    def fails(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(protocol, "read_array", fails)
        session.start(ask(volume(np.zeros((1, 40, 48), np.uint8)), bundle))
        assert run(session)[-1][0] == "failed"
    finish(session)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert not session.canRethreshold


def test_a_disk_without_room_for_the_exchange_folder_is_told(session, volume, bundle, monkeypatch):
    def fails(*_, **__):
        raise FULL

    session.worker.stop()
    monkeypatch.setattr("tempfile.mkdtemp", fails)
    session.start(ask(volume(np.zeros((1, 40, 48), np.uint8)), bundle))
    ((kind, message, remedy),) = session.poll()
    assert kind == "failed"
    assert FULL.strerror in message
    assert "disk space" in remedy
    assert not session.isBusy
