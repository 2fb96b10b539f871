"""The module's environment: really built from wheels made here, stopped, repaired, removed."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "slicer_extension" / "SAM2UNet"
if str(LIBRARY) not in sys.path:
    sys.path.insert(0, str(LIBRARY))
Background = importlib.import_module("SAM2UNetLib.BackgroundProcess")
Env = importlib.import_module("SAM2UNetLib.Environment")
Plans = importlib.import_module("SAM2UNetLib.EnvironmentPlan")
Builders = importlib.import_module("SAM2UNetLib.EnvironmentBuilder")

BASE = Path(sys.executable)
PATIENCE = 600
STAND_IN = """
import json, sys
import stand_in_torch
def main():
    assert sys.argv[1:] == ["doctor", "--json"] or sys.argv[1] == "echo", sys.argv
    if sys.argv[1] == "echo":
        print("echo", sys.argv[2])
        return 0
    print(json.dumps({"works": stand_in_torch.WORKS, "findings": [
        {"name": "sam2unet", "value": "9.9", "state": "ok", "remedy": ""},
        {"name": "torch", "value": "8.8", "state": "ok" if stand_in_torch.WORKS else "broken",
         "remedy": "take another build"}]}))
    return 0 if stand_in_torch.WORKS else 2
"""


def make_wheel(folder: Path, name: str, files: dict[str, str], *, requires: str = "") -> None:
    """Write a wheel with these files, by the wheel format (PEP 427)."""
    info = f"{name}-9.9.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\nProvides-Extra: video\n"
    if requires:
        meta += f"Requires-Dist: {requires}\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = {**files, f"{info}/METADATA": meta, f"{info}/WHEEL": tags}
    record = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-9.9-py3-none-any.whl", "w") as archive:
        for path, text in {**content, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "räder und mehr"
    folder.mkdir()
    core = {"sam2unet_core/__init__.py": "", "sam2unet_core/cli/__init__.py": ""}
    core["sam2unet_core/cli/main.py"] = STAND_IN
    make_wheel(folder, "sam2unet", core, requires="stand_in_torch")
    make_wheel(folder, "stand_in_torch", {"stand_in_torch.py": "WORKS = True\n"})
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Env.OwnEnvironment:
    return Env.OwnEnvironment(tmp_path / "Größe mit Leerzeichen" / "environment")


def planned(own: Env.OwnEnvironment, wheels: Path, base: Path = BASE) -> Plans.Plan:
    torch = Plans.TorchBuild("cpu", "CPU only", 1, 1)
    return Plans.makePlan(own, base, wheels=wheels, torch=torch)


def carry_out(builder: Builders.EnvironmentBuilder, until: tuple | None = None) -> list[tuple]:
    """Return the events up to the end, or up to the event that begins like `until`."""
    events: list[tuple] = []
    while not builder.finished:
        events += builder.wait(PATIENCE)
        if until and any(event[: len(until)] == until for event in events):
            break
    return events


def say(own: Env.OwnEnvironment, word: str) -> str:
    done = subprocess.run([*own.command(), "echo", word], capture_output=True, check=True)
    return done.stdout.decode("utf-8").strip()


def test_it_is_built_from_a_folder_of_wheels_below_a_path_with_spaces_and_umlauts(
    own: Env.OwnEnvironment, wheels: Path
) -> None:
    assert own.state() is Env.State.ABSENT
    builder = Builders.EnvironmentBuilder(planned(own, wheels))
    builder.start()
    events = carry_out(builder)
    assert events[-1] == ("finished", "sam2unet 9.9, torch 8.8")
    assert own.state() is Env.State.READY
    assert own.marker["mode"] == "venv"
    assert say(own, "Grüße") == "echo Grüße"
    steps = [event[1] for event in events if event[0] == "step"]
    assert steps == [2, 3, 4]
    progress = [event[1] for event in events if event[0] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


def test_nothing_is_installed_into_the_python_that_builds_it(
    own: Env.OwnEnvironment, wheels: Path
) -> None:
    builder = Builders.EnvironmentBuilder(planned(own, wheels))
    builder.start()
    carry_out(builder)
    found = subprocess.run([BASE, "-c", "import stand_in_torch"], capture_output=True, check=False)
    assert b"ModuleNotFoundError" in found.stderr


def test_a_cancelled_build_is_told_apart_and_repaired(
    own: Env.OwnEnvironment, wheels: Path
) -> None:
    builder = Builders.EnvironmentBuilder(planned(own, wheels))
    builder.start()
    carry_out(builder, until=("step", 3))
    process = builder._process._process
    assert builder.cancel() == [("cancelled",)]
    assert process.poll() is not None
    assert builder.poll() == []
    assert own.state() is Env.State.INTERRUPTED
    with pytest.raises(Env.EnvironmentProblem, match="Press Repair"):
        own.command()

    again = Builders.EnvironmentBuilder(planned(own, wheels))
    again.start()
    assert carry_out(again)[-1][0] == "finished"
    assert say(own, "back") == "echo back"


def test_a_build_that_was_killed_is_found_interrupted(own: Env.OwnEnvironment) -> None:
    own.writeMarker({"state": "building", "mode": "venv"})
    assert own.state() is Env.State.INTERRUPTED
    own.writeMarker({"state": "ready", "mode": "venv"})  # but its Python is gone
    assert own.state() is Env.State.INTERRUPTED


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS: a script as Python")
def test_a_python_that_makes_no_virtual_environment_is_given_a_folder(
    own: Env.OwnEnvironment, wheels: Path, tmp_path: Path
) -> None:
    base = tmp_path / "PythonSlicer"
    base.write_text(f'#!/bin/sh\n[ "$2" = venv ] && exit 1\nexec "{BASE}" "$@"\n')
    base.chmod(0o755)
    builder = Builders.EnvironmentBuilder(planned(own, wheels, base))
    builder.start()
    events = carry_out(builder)
    assert events[-1][0] == "finished", builder.log
    assert own.marker["mode"] == "target"
    assert own.command()[0] == str(base)
    assert say(own, "folder") == "echo folder"
    assert not (own.folder / "venv").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS: a script as Python")
def test_packages_of_slicers_python_do_not_count_as_the_environments(
    own: Env.OwnEnvironment, wheels: Path, tmp_path: Path
) -> None:
    """PythonSlicer sets PYTHONPATH to Slicer's packages, and PYTHONHOME, for all it starts."""
    slicers = tmp_path / "Slicer" / "site-packages"
    slicers.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "stand_in_torch-9.9-py3-none-any.whl") as archive:
        archive.extractall(slicers)
    before = sorted(slicers.rglob("*"))
    base = tmp_path / "PythonSlicer"
    base.write_text(
        f'#!/bin/sh\nexport PYTHONHOME="{sys.base_prefix}" PYTHONPATH="{slicers}"\n'
        f'exec "{BASE}" "$@"\n'
    )
    base.chmod(0o755)
    builder = Builders.EnvironmentBuilder(planned(own, wheels, base))
    builder.start()
    events = carry_out(builder)
    assert events[-1] == ("finished", "sam2unet 9.9, torch 8.8"), builder.log
    assert own.marker["mode"] == "venv"
    assert list((own.folder / "venv").rglob("stand_in_torch.py"))
    assert sorted(slicers.rglob("*")) == before


def test_slicers_python_is_its_launcher_and_never_slicer_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, application = tmp_path / "bin", tmp_path / "MacOS" / "Slicer"
    monkeypatch.setattr(sys, "executable", str(application))
    monkeypatch.setenv("PATH", str(programs))
    assert Env.slicerPython() != application
    programs.mkdir()
    launcher = programs / ("PythonSlicer.exe" if sys.platform == "win32" else "PythonSlicer")
    launcher.write_bytes(b"")
    launcher.chmod(0o755)
    assert Env.slicerPython() == launcher


def test_it_is_removed_whole_but_never_a_folder_of_someone_else(
    own: Env.OwnEnvironment, wheels: Path, tmp_path: Path
) -> None:
    builder = Builders.EnvironmentBuilder(planned(own, wheels))
    builder.start()
    carry_out(builder)
    own.remove()
    assert not own.folder.exists()
    assert wheels.is_dir()

    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("ten years of work")
    foreign = Env.OwnEnvironment(other)
    assert foreign.state() is Env.State.FOREIGN
    with pytest.raises(Env.EnvironmentProblem, match="nothing was removed"):
        foreign.remove()
    with pytest.raises(Env.EnvironmentProblem, match="Choose another folder"):
        Builders.EnvironmentBuilder(planned(foreign, wheels)).start()
    assert (other / "chapter.txt").read_text() == "ten years of work"


def test_a_missing_wheel_fails_with_what_to_do(own: Env.OwnEnvironment, wheels: Path) -> None:
    (wheels / "stand_in_torch-9.9-py3-none-any.whl").unlink()
    builder = Builders.EnvironmentBuilder(planned(own, wheels))
    builder.start()
    kind, message, remedy = carry_out(builder)[-1]
    assert kind == "failed"
    assert "No matching distribution found for stand_in_torch" in message
    assert "folder of wheels" in remedy
    assert own.state() is Env.State.INTERRUPTED


def test_software_that_cannot_run_fails_with_the_doctors_remedy(
    own: Env.OwnEnvironment, wheels: Path
) -> None:
    make_wheel(wheels, "stand_in_torch", {"stand_in_torch.py": "WORKS = False\n"})
    builder = Builders.EnvironmentBuilder(planned(own, wheels))
    builder.start()
    kind, message, _ = carry_out(builder)[-1]
    assert kind == "failed"
    assert "ended with code 2" in message


def test_a_python_that_is_not_there_fails(own: Env.OwnEnvironment, wheels: Path) -> None:
    builder = Builders.EnvironmentBuilder(planned(own, wheels, Path("/no/such/python")))
    builder.start()
    assert builder.finished
    assert own.marker["state"] == "failed"
    with pytest.raises(Env.EnvironmentProblem, match="no such file"):
        Env.ExistingEnvironment(Path("/no/such/python")).command()


def test_a_plan_says_what_and_how_much_before_anything_is_done(
    own: Env.OwnEnvironment, wheels: Path, tmp_path: Path
) -> None:
    plan = Plans.makePlan(own, BASE, torch=Plans.torchBuild("cu128"))
    assert "sources of sam2unet are not beside the module" in plan.problem
    assert "9.5 GB" in plan.text()
    assert "3.6 GB are downloaded" in plan.text()
    assert str(own.folder) in plan.text()
    assert "Nothing is downloaded" in planned(own, wheels).text()
    assert not own.folder.exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "contains no wheel files" in planned(own, empty).problem
    huge = Plans.TorchBuild("cpu", "CPU only", 1, 10**9)
    assert "Free some space" in Plans.makePlan(own, BASE, torch=huge).problem


def test_sources_beside_the_module_are_installed_with_their_constraints(
    own: Env.OwnEnvironment, repository: Path
) -> None:
    plan = Plans.makePlan(own, BASE, source=repository, torch=Plans.torchBuild("cpu"))
    install = plan.steps("venv")[-1].command
    assert install[-1] == f"{repository}[video]"
    pip = install[install.index("install") :]
    assert pip[pip.index("-c") + 1] == str(repository / "constraints.txt")
    assert install[install.index("--extra-index-url") + 1].endswith("/whl/cpu")
    target = plan.steps("target")[0].command
    assert target[target.index("--target") + 1] == str(own.folder / "site")


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("| NVIDIA-SMI 580.65   Driver Version: 580.65   CUDA Version: 13.0  |", "cu130"),
        ("| NVIDIA-SMI 570.1    Driver Version: 570.1    CUDA Version: 12.8  |", "cu128"),
        ("| NVIDIA-SMI 560.35   Driver Version: 560.35   CUDA Version: 12.6  |", "cu126"),
        ("| NVIDIA-SMI 470.57   Driver Version: 470.57   CUDA Version: 11.4  |", "cpu"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the driver", "cpu"),
    ],
)
def test_the_build_of_pytorch_follows_the_driver(heading: str, name: str) -> None:
    build, reason = Plans.chooseTorch("linux", Plans.readCudaVersion(heading))
    assert build.name == name
    assert reason
    assert Plans.chooseTorch("darwin", None)[0].name == ""


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: ... ProxyError('Cannot connect to proxy.')", "HTTPS_PROXY"),
        ("... [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "PIP_CERT"),
        ("... NameResolutionError: Failed to resolve 'example.org'", "cannot be reached"),
        ("/usr/bin/python3: No module named pip", "no pip"),
        ("ERROR: Package 'sam2unet' requires a different Python: 3.9.1", "3.11 to 3.13"),
        ("PermissionError: [WinError 5] Access is denied: 'torch.dll'", "Close other Slicer"),
    ],
)
def test_what_pip_says_is_turned_into_what_to_do(
    own: Env.OwnEnvironment, wheels: Path, line: str, remedy: str
) -> None:
    builder = Builders.EnvironmentBuilder(planned(own, wheels))
    builder._stepLines = [line]
    kind, message, said = builder._failed(Plans.Step("Installing packages", []), 1)[0]
    assert kind == "failed"
    assert remedy in said
    assert line in message


def test_slicers_variables_do_not_reach_the_other_python() -> None:
    clean = Background.cleanEnvironment(
        {"PYTHONHOME": "x", "PYTHONPATH": "y", "LD_LIBRARY_PATH": "z", "HTTPS_PROXY": "p"}
    )
    assert "PYTHONHOME" not in clean
    assert "LD_LIBRARY_PATH" not in clean
    assert clean["HTTPS_PROXY"] == "p"
    assert clean["PYTHONUTF8"] == "1"


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS: inherited pipes")
def test_stopping_a_command_ends_its_children(tmp_path: Path) -> None:
    """The child keeps a pipe open; that it closes says that the child has ended."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    child = "import sys; print('here', flush=True); sys.stdin.read()"
    parent = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]],"
        f" stdin=subprocess.PIPE, pass_fds=[{writer}])"
    )
    process = Background.BackgroundProcess([str(BASE), "-c", parent, child])
    real = subprocess.Popen

    def popen(*args: object, **kwargs: object) -> object:
        return real(*args, **kwargs, pass_fds=[writer])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Background.subprocess, "Popen", popen)
        process.start()
    os.close(writer)
    process.wait(PATIENCE)
    assert process.poll() == ["here"]
    process.stop()
    assert os.read(reader, 1) == b""  # waits until every holder of the pipe is gone
    os.close(reader)


def test_the_doctors_answer_is_read_behind_other_output() -> None:
    answer = {"works": True, "findings": [{"name": "torch", "value": "2.13", "state": "ok"}]}
    lines = ["a warning", *json.dumps(answer, indent=1).splitlines()]
    assert Plans.readDoctor(lines) == (True, "torch 2.13")
    assert Plans.readDoctor(["No module named 'sam2unet_core'"])[0] is False
    assert Plans.readDoctor([])[1].endswith("no answer")
