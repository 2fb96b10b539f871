"""MLflow and TensorBoard write into the run's folder, and nothing leaves the machine."""

import json
import os
import sqlite3
import subprocess
import sys

WATCH = """
import json, os, socket
_connect = socket.socket.connect
def connect(self, address):
    with open(os.environ["CONNECTIONS"], "a") as stream:
        stream.write(json.dumps(repr(address)) + chr(10))
    return _connect(self, address)
socket.socket.connect = connect
_resolve = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    with open(os.environ["CONNECTIONS"], "a") as stream:
        stream.write(json.dumps(repr(host)) + chr(10))
    return _resolve(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""
LOCAL = ("127.0.0.1", "localhost", "::1", "/")


def test_a_training_started_by_the_command_tracks_into_its_own_folder_only(
    tmp_path, dataset, task_file, small
):
    """In new processes, which `sitecustomize.py` watches from their start."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "connections.txt").touch()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    watched = {"PYTHONPATH": path, "CONNECTIONS": str(tmp_path / "connections.txt")}
    command = [sys.executable, "-m", "sam2unet_core", "train", "--data", dataset]
    command += ["--task", task_file, "-o", "out"]
    for key, value in (small | {"mlflow": True, "tensorboard": True}).items():
        command += [f"--{key}", str(value)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | watched,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " -m monai.bundle run training --config_file " in done.stdout.splitlines()[0]
    assert (tmp_path / "out" / "model.safetensors").is_file()
    lines = (tmp_path / "connections.txt").read_text().splitlines()
    strangers = [line for line in lines if not any(name in json.loads(line) for name in LOCAL)]
    assert strangers == []
    assert list((tmp_path / "out" / "tensorboard").rglob("events.out.*"))
    with sqlite3.connect(tmp_path / "out" / "mlflow.db") as store:
        keys = {key for (key,) in store.execute("select distinct key from metrics")}
        params = store.execute("select key, value from params").fetchall()
    assert {"loss"} <= {key.lower() for key in keys}
    assert not any(str(dataset) in value for _, value in params)
    assert not (tmp_path / "mlruns").exists()
