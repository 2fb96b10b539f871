"""What building the environment will do: steps, sizes, and the build of PyTorch for this machine.

A plan is shown before anything is done.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .BackgroundProcess import END_OF_SLICER
from .Environment import SITE, OwnEnvironment
from .Texts import _

DISTRIBUTION = "sam2unet[video]"
PYTORCH = "https://download.pytorch.org/whl/"
PACKAGES = 110
"""About how many packages pip collects; for the progress bar only."""
PROBE = (
    "import ctypes, json, lzma, sqlite3, ssl, sys, zlib; "
    "assert sys.version_info[:2] >= (3, 11), sys.version; print(json.dumps(sys.version_info[:3]))"
)
"""What the new environment's Python must be able to do: Slicer's may lack its libraries there."""

PIP_ELSEWHERE = (
    "import os, subprocess, sys, pip; "
    f"own = {{name: value for name, value in os.environ.items() if name not in {END_OF_SLICER}}}; "
    "runner = os.path.join(os.path.dirname(os.path.abspath(pip.__file__)), '__pip-runner__.py'); "
    "sys.exit(subprocess.call([sys.argv[1], '-I', runner, *sys.argv[2:]], env=own))"
)
"""Runs the base Python's pip in another Python; the arguments are that Python and pip's own.

`pip --python` hands on PYTHONHOME and PYTHONPATH, which PythonSlicer sets: pip would take Slicer's
packages for the new environment's and leave them out of it.
"""


@dataclass(frozen=True)
class TorchBuild:
    """A build of PyTorch.

    Attributes:
        name: `cpu`, `cu128`, ...; empty for what the package index has by default (macOS).
        label: what the user reads.
        downloadMb: approximate download, with all other packages.
        diskMb: approximate disk space, with all other packages.
        cuda: least CUDA version the driver must offer.
    """

    name: str
    label: str
    downloadMb: int
    diskMb: int
    cuda: tuple[int, int] = (0, 0)


TORCH_BUILDS = (
    TorchBuild("cu130", "NVIDIA GPU (CUDA 13.0)", 2600, 7000, (13, 0)),
    TorchBuild("cu128", "NVIDIA GPU (CUDA 12.8)", 3600, 9500, (12, 8)),
    TorchBuild("cu126", "NVIDIA GPU (CUDA 12.6)", 3300, 8500, (12, 6)),
    TorchBuild("cpu", "CPU only", 700, 3000),
    TorchBuild("", "macOS (CPU and Apple GPU)", 600, 2500),
)
"""Best first. The sizes are for versions of 2026 and only say what to expect."""


@dataclass(frozen=True)
class Step:
    """One command of a build."""

    label: str
    command: list[str]


@dataclass(frozen=True)
class Plan:
    """What a build will do.

    Attributes:
        environment: the folder to fill.
        base: Python that makes the environment and runs pip.
        source: folder with the sources of `sam2unet`, or None for the released package.
        wheels: folder with wheel files; nothing is downloaded then.
        torch: build of PyTorch.
        freeMb: free space on that disk.
    """

    environment: OwnEnvironment
    base: Path
    source: Path | None
    wheels: Path | None
    torch: TorchBuild
    freeMb: int

    @property
    def problem(self) -> str:
        """Why it cannot begin, and what to do; empty if it can."""
        if self.wheels is not None and not list(self.wheels.glob("*.whl")):
            return _(
                "{folder}: contains no wheel files (*.whl). Choose another folder, or none."
            ).format(folder=self.wheels)
        if self.freeMb < self.torch.diskMb:
            return _(
                "Needs about {needed}, but only {free} are free at {folder}. Free some space or "
                "choose another folder."
            ).format(
                needed=_size(self.torch.diskMb),
                free=_size(self.freeMb),
                folder=self.environment.folder,
            )
        if self.source is None and self.wheels is None:
            # By its name alone a package index could hand out anybody's package of that name.
            return _(
                "The sources of sam2unet are not beside the module. Choose a folder of wheels."
            )
        return ""

    def needs(self) -> str:
        """Return what it takes: disk space and download."""
        fetched = (
            _("Nothing is downloaded: the packages come from {folder}.").format(folder=self.wheels)
            if self.wheels
            else _("About {size} are downloaded from the internet.").format(
                size=_size(self.torch.downloadMb)
            )
        )
        space = _("It needs about {needed} of disk space; {free} are free.").format(
            needed=_size(self.torch.diskMb), free=_size(self.freeMb)
        )
        return f"{space}\n{fetched}"

    def text(self) -> str:
        """Return what the user should know before agreeing."""
        return "\n".join(
            [
                _("A Python environment is built in {folder}.").format(
                    folder=self.environment.folder
                ),
                self.needs(),
                _(
                    "PyTorch: {build}. With it come MONAI, pydicom, highdicom and PyAV (video; its "
                    "wheels carry GPL codecs)."
                ).format(build=self.torch.label),
                _(
                    "Slicer's own Python is not changed. The build runs in the background and can "
                    "be cancelled."
                ),
            ]
        )

    def steps(self, mode: str) -> list[Step]:
        """Return the commands, in order.

        Args:
            mode: `venv`, or `target` where the base Python cannot make a working one.
        """
        own = self.environment
        if mode == "target":
            pip = [str(self.base), "-m", "pip", "install", "--target", str(own.folder / SITE)]
            return [Step(_("Installing packages"), [*pip, *self._install()])]
        venv = str(own.folder / "venv")
        python = str(own.python)
        return [
            Step(
                _("Creating the environment"),
                [str(self.base), "-m", "venv", "--clear", "--without-pip", venv],
            ),
            Step(_("Testing its Python"), [python, "-I", "-c", PROBE]),
            Step(
                _("Installing packages"),
                [str(self.base), "-c", PIP_ELSEWHERE, python, "install", *self._install()],
            ),
        ]

    def _install(self) -> list[str]:
        quiet = ["--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
        words = [*quiet, "--progress-bar", "off", "--prefer-binary"]
        if self.wheels is not None:
            name = DISTRIBUTION if list(self.wheels.glob("sam2unet-*.whl")) else self._requirement()
            return [*words, "--no-index", "--find-links", str(self.wheels), name]
        if self.torch.name:
            words += ["--extra-index-url", PYTORCH + self.torch.name]
        if self.source is not None and (self.source / "constraints.txt").is_file():
            words += ["-c", str(self.source / "constraints.txt")]
        return [*words, self._requirement()]

    def _requirement(self) -> str:
        if self.source is None:
            return DISTRIBUTION
        return f"{self.source}{DISTRIBUTION.removeprefix('sam2unet')}"


def makePlan(
    environment: OwnEnvironment,
    base: Path,
    *,
    source: Path | None = None,
    wheels: Path | None = None,
    torch: TorchBuild | None = None,
) -> Plan:
    """Look at this machine and return what a build would do. Writes nothing, uses no network."""
    chosen = torch or chooseTorch(sys.platform, driverCuda())[0]
    existing = environment.folder
    while not existing.exists() and existing.parent != existing:
        existing = existing.parent
    free = shutil.disk_usage(existing).free // 2**20
    return Plan(environment, base, source, wheels, chosen, int(free))


def chooseTorch(platform: str, cuda: tuple[int, int] | None) -> tuple[TorchBuild, str]:
    """Return the build of PyTorch that suits a machine, and why.

    Args:
        platform: as `sys.platform`.
        cuda: highest CUDA version that the driver offers; None without an NVIDIA driver.
    """
    if platform == "darwin":
        return torchBuild(""), _("macOS has one build.")
    if cuda is None:
        return torchBuild("cpu"), _("No NVIDIA driver was found.")
    for build in TORCH_BUILDS:
        if build.cuda > (0, 0) and cuda >= build.cuda:
            return build, _("The NVIDIA driver offers CUDA {version}.").format(
                version=f"{cuda[0]}.{cuda[1]}"
            )
    return torchBuild("cpu"), _(
        "The NVIDIA driver offers CUDA {version} and PyTorch needs 12.6; with a newer driver the "
        "GPU can be used."
    ).format(version=f"{cuda[0]}.{cuda[1]}")


def torchBuild(name: str) -> TorchBuild:
    """Return the build with this name."""
    return next(build for build in TORCH_BUILDS if build.name == name)


def driverCuda() -> tuple[int, int] | None:
    """Ask `nvidia-smi` which CUDA version the driver offers; None if it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    window = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
    try:
        done = subprocess.run(
            [program], capture_output=True, text=True, timeout=10, check=False, **window
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return readCudaVersion(done.stdout) if done.returncode == 0 else None


class DriverQuestion:
    """Asks for the driver's CUDA version in a thread: the answer can take seconds.

    Args:
        ask: returns the version, or None.

    Attributes:
        answered: whether the answer was taken by `poll`.
        cuda: the answer.
    """

    def __init__(self, ask: Callable[[], tuple[int, int] | None]) -> None:
        self.answered = False
        self.cuda: tuple[int, int] | None = None
        self._found: list[tuple[int, int] | None] = []
        self._thread = threading.Thread(target=lambda: self._found.append(ask()), daemon=True)
        self._thread.start()

    def poll(self) -> bool:
        """Return whether the answer came since the last call."""
        if self.answered or self._thread.is_alive():
            return False
        self.answered = True
        self.cuda = self._found[0] if self._found else None
        return True


def readCudaVersion(text: str) -> tuple[int, int] | None:
    """Read the CUDA version from the heading that `nvidia-smi` prints."""
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def readDoctor(lines: list[str]) -> tuple[bool, str]:
    """Read what `sam2unet doctor --json` printed.

    Returns:
        Whether the software can run, and one line on what was found.
    """
    text = "\n".join(lines)
    start = text.find("{")
    try:
        content = json.loads(text[start:]) if start >= 0 else None
        findings = {item["name"]: item["value"] for item in content["findings"]}
        broken = [item for item in content["findings"] if item["state"] == "broken"]
        works = bool(content["works"])
    except (ValueError, TypeError, KeyError):
        last = lines[-1] if lines else "no answer"
        return False, f"This Python has no working sam2unet: {last}"
    if not works:
        return False, "; ".join(f"{item['name']}: {item['remedy']}" for item in broken)
    names = [name for name in ("sam2unet", "Python", "python", "torch", "GPU") if name in findings]
    return True, ", ".join(f"{name} {findings[name]}" for name in names) or "sam2unet can run here."


def _size(mb: int) -> str:
    return f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb} MB"
