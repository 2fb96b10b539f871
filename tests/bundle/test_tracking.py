"""MLflow and TensorBoard write into the run's folder, and nothing leaves the machine."""

import json
import os
import sqlite3

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


def test_tracking_stays_in_the_folder_of_the_run(
    tmp_path, dataset, task_file, small, run_verb, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CONNECTIONS", str(tmp_path / "connections.txt"))
    (tmp_path / "connections.txt").touch()
    done = run_verb(
        "run",
        "training",
        cwd=tmp_path,
        config="train.yaml",
        fresh=True,  # with the sitecustomize.py
        dataset_dir=dataset,
        task=task_file,
        output_dir="out",
        mlflow=True,
        tensorboard=True,
        **small,
    )
    assert done.returncode == 0, done.stdout + done.stderr
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
