"""The client of the worker: events, deaths, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest
from SAM2UNetLib.WorkerProcess import WorkerProcess

PATIENCE_S = 300

FAKE = """
    import json, os, subprocess, sys, time
    print("a line for people", file=sys.stderr, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        def say(event, **fields):
            print(json.dumps({"v": 1, "id": request["id"], "event": event, **fields}), flush=True)
        if request["op"] == "hello":
            print("this is no event", flush=True)
            say("progress", done=1, total=2)
            say("finished", result={"argv": sys.argv[1:], "home": os.environ.get("PYTHONHOME")})
        elif request["op"] == "load":
            os._exit(3)
        elif request["op"] == "inspect":
            quiet = subprocess.DEVNULL
            held = [sys.executable, "-c", "import time; time.sleep(600)"]
            child = subprocess.Popen(held, stdin=quiet, stdout=quiet, start_new_session=True)
            print("child", child.pid, file=sys.stderr, flush=True)
            os._exit(3)
        elif request["op"] == "shutdown":
            say("finished", result={})
            break
"""


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(textwrap.dedent(FAKE), encoding="utf-8")
    (tmp_path / "exchange").mkdir()
    made = WorkerProcess(
        [sys.executable, str(script)],
        exchangeParent=tmp_path / "exchange",
        allowRoots=[tmp_path],
        environment={**os.environ, "PYTHONHOME": "/slicer"},
    )
    yield made
    made.stop()


def test_a_request_gets_its_events_and_slicer_s_variables_stay_out(worker, tmp_path):
    worker.start()
    events = worker.wait(worker.request("hello"), timeout=PATIENCE_S)
    assert [event["event"] for event in events] == ["progress", "finished"]
    result = events[-1]["result"]
    assert result["home"] is None
    assert result["argv"][:2] == ["--exchange", str(worker.exchange)]
    assert result["argv"][-2:] == ["--allow-root", str(tmp_path)]
    assert "this is no event" not in str(events)
    worker.stop()  # what the worker writes for people comes by another pipe: now all of it is here
    assert "line that is no event" in worker.log
    assert "a line for people" in worker.log


def test_a_worker_s_last_words_are_in_the_log_when_its_death_is_told(worker, monkeypatch):
    read = WorkerProcess._readLog

    def readLate(self, process):
        time.sleep(0.2)
        read(self, process)

    monkeypatch.setattr(WorkerProcess, "_readLog", readLate)
    monkeypatch.setattr("SAM2UNetLib.WorkerProcess.LAST_WORDS_S", PATIENCE_S)
    worker.start()
    assert worker.wait(worker.request("load"), timeout=PATIENCE_S)[-1]["kind"] == "worker_died"
    assert "a line for people" in worker.log


def test_a_child_that_holds_the_log_open_keeps_nobody_waiting_for_long(worker):
    worker.start()
    assert worker.wait(worker.request("inspect"), timeout=PATIENCE_S)[-1]["kind"] == "worker_died"
    worker.stop()
    child = int(re.search(r"^child (\d+)$", worker.log, re.MULTILINE)[1])
    os.kill(child, signal.SIGTERM)  # it is there still: nobody has waited for its end


def test_the_exchange_folder_is_private_and_goes_with_the_worker(worker):
    worker.start()
    folder = worker.exchange
    assert folder.is_dir()
    if os.name == "posix":
        assert folder.stat().st_mode & 0o077 == 0
    worker.stop()
    assert not folder.exists()
    assert not worker.isAlive


def test_a_worker_that_ends_leaves_no_request_unanswered(worker):
    worker.start()
    first, second = worker.request("load"), worker.request("inspect")
    failed = worker.wait(second, timeout=PATIENCE_S)[-1]
    assert failed["event"] == "failed"
    assert failed["kind"] == "worker_died"
    assert "code 3" in failed["message"]
    assert failed["remedy"]
    assert [event["id"] for event in worker.poll()] == [first]
    late = worker.wait(worker.request("hello"), timeout=PATIENCE_S)[-1]
    assert late["kind"] == "worker_died"


def test_a_worker_can_be_started_again_after_its_end(worker):
    worker.start()
    worker.wait(worker.request("load"), timeout=PATIENCE_S)
    worker.start()
    assert worker.wait(worker.request("hello"), timeout=PATIENCE_S)[-1]["event"] == "finished"


def test_events_of_other_requests_are_kept(worker):
    worker.start()
    first, second = worker.request("hello"), worker.request("hello")
    assert worker.wait(second, timeout=PATIENCE_S)[-1]["id"] == second
    assert {event["id"] for event in worker.poll()} == {first}


def test_a_program_that_is_not_there_leaves_no_folder(tmp_path):
    made = WorkerProcess([str(tmp_path / "nothing")], exchangeParent=tmp_path)
    with pytest.raises(OSError, match="nothing"):
        made.start()
    assert list(Path(tmp_path).iterdir()) == []
