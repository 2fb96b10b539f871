"""The Python environment of the network: one that this module builds, or an existing one.

Slicer's own Python stays as it is: nothing is installed into it and nothing of it is replaced.
What fills the folder is in EnvironmentPlan.py and EnvironmentBuilder.py.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from .Texts import _

MARKER = "sam2unet-environment.json"
SITE = "site"
RUNNER = "run.py"
START = "import sys; from sam2unet_core.cli.main import main; sys.exit(main())"
"""What starts the command line: it needs no script on PATH, and the folder may be moved."""
RUNNER_TEXT = f"""import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), {SITE!r}))
{START}
"""


class EnvironmentProblem(Exception):
    """An environment that cannot be used; says what to do."""


class State(Enum):
    """What is in the folder."""

    ABSENT = "absent"
    READY = "ready"
    INTERRUPTED = "interrupted"
    FOREIGN = "foreign"
    """The folder contains something that is not ours."""


@dataclass(frozen=True)
class ExistingEnvironment:
    """A Python that has `sam2unet` already.

    Attributes:
        python: its executable.
    """

    python: Path

    def command(self) -> list[str]:
        """Return the command that starts `sam2unet`; its arguments follow.

        Raises:
            EnvironmentProblem: there is no such file.
        """
        if not self.python.is_file():
            raise EnvironmentProblem(
                _(
                    "{python}: no such file. Choose the Python of an environment that has "
                    "sam2unet, such as .venv/bin/python or .venv\\Scripts\\python.exe."
                ).format(python=self.python)
            )
        return [str(self.python), "-I", "-X", "utf8", "-c", START]


@dataclass(frozen=True)
class OwnEnvironment:
    """The folder that the module fills, repairs and removes.

    A virtual environment, or, where the base Python cannot make one that works, a folder `site`
    of packages that the base Python is pointed to.

    Attributes:
        folder: everything lies below it.
    """

    folder: Path

    @property
    def python(self) -> Path:
        """The virtual environment's executable."""
        if sys.platform == "win32":
            return self.folder / "venv" / "Scripts" / "python.exe"
        return self.folder / "venv" / "bin" / "python"

    @property
    def marker(self) -> dict[str, Any]:
        """What the last build wrote down; empty if there is nothing readable."""
        try:
            content = json.loads((self.folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def writeMarker(self, content: Mapping[str, Any]) -> None:
        """Record the state of a build; by renaming, so that the file is never half written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / (MARKER + ".part")
        part.write_text(json.dumps(dict(content), indent=2) + "\n", encoding="utf-8")
        part.replace(self.folder / MARKER)

    def state(self) -> State:
        """Look at the folder. Starts nothing."""
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return State.ABSENT
        if not (self.folder / MARKER).is_file():
            return State.FOREIGN
        marker = self.marker
        if marker.get("state") == "ready" and self._executable(marker).is_file():
            return State.READY
        return State.INTERRUPTED

    def command(self) -> list[str]:
        """Return the command that starts `sam2unet`; its arguments follow.

        Raises:
            EnvironmentProblem: it is not built, or not to its end.
        """
        state = self.state()
        if state is State.ABSENT:
            raise EnvironmentProblem(
                _("The network needs an environment of its own, which is not set up yet.")
            )
        if state is not State.READY:
            raise EnvironmentProblem(
                _("The build of the environment was interrupted. Press Repair on the Setup tab.")
            )
        return self.commandFor(self.marker)

    def commandFor(self, marker: Mapping[str, Any]) -> list[str]:
        """Return the command that starts `sam2unet` in an environment with this marker."""
        executable = str(self._executable(marker))
        if marker.get("mode") == "target":
            return [executable, "-s", "-X", "utf8", str(self.folder / RUNNER)]
        return [executable, "-I", "-X", "utf8", "-c", START]

    def writeRunner(self) -> None:
        """Write the file that points the base Python to `site`."""
        (self.folder / RUNNER).write_text(RUNNER_TEXT, encoding="utf-8")

    def remove(self) -> None:
        """Remove the folder.

        Raises:
            EnvironmentProblem: the folder is not ours, or a file in it is in use.
        """
        state = self.state()
        if state is State.ABSENT:
            return
        if state is State.FOREIGN:
            raise EnvironmentProblem(
                _(
                    "{folder}: contains files that this module did not write, so nothing was "
                    "removed. Choose another folder."
                ).format(folder=self.folder)
            )
        marker = self.marker
        self.writeMarker({**marker, "state": "removing"})
        for each in sorted(self.folder.iterdir()):
            if each.name != MARKER:  # last, so that an interrupted removal can be finished
                _removeTree(each)
        _removeTree(self.folder)

    def _executable(self, marker: Mapping[str, Any]) -> Path:
        if marker.get("mode") == "target":
            return Path(str(marker.get("base", "")))
        return self.python


def dataFolder(variables: Mapping[str, str] | None = None) -> Path:
    """Return the user's data folder for this module, by the customs of the system.

    Short on Windows, where some packages have long paths.
    """
    variables = os.environ if variables is None else variables
    if sys.platform == "win32":
        return Path(variables.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "SAM2UNet"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "SAM2UNet"
    return Path(variables.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "sam2unet-slicer"


def modelFolder(variables: Mapping[str, str] | None = None) -> Path:
    """Return where `sam2unet weights fetch` keeps what it downloads, as `sam2unet` itself does."""
    variables = os.environ if variables is None else variables
    chosen = variables.get("SAM2UNET_CACHE")
    if chosen:
        return Path(chosen) / "weights"
    if sys.platform == "win32":
        local = Path(variables.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
        return local / "sam2unet" / "sam2unet" / "Cache" / "weights"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sam2unet" / "weights"
    return Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sam2unet" / "weights"


def slicerPython() -> Path:
    """Return the Python that Slicer brings, with its launcher where there is one.

    Inside Slicer the running program may be Slicer itself: that is never returned.
    """
    found = shutil.which("PythonSlicer")  # Slicer puts its folder on PATH
    if found is not None:
        return Path(found)
    here = Path(sys.executable)
    launcher = here.with_name("PythonSlicer" + here.suffix)
    is_python = "python" in here.name.lower()
    return here if is_python and not launcher.is_file() else launcher


def _removeTree(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, **_onError(_allowAndRetry))
        else:
            path.unlink()
    except OSError as error:
        reason = (error.strerror or "cannot be removed").lower()
        raise EnvironmentProblem(
            f"{error.filename or path}: {reason}. Close other Slicer windows and remove again."
        ) from error


def _onError(handle: Callable[..., None]) -> dict[str, Callable[..., None]]:
    return {"onexc" if sys.version_info >= (3, 12) else "onerror": handle}


def _allowAndRetry(function: Callable[[str], object], path: str, _error: object) -> None:
    """Windows keeps read-only files; take that away and try once more."""
    os.chmod(path, stat.S_IRWXU)  # noqa: PTH101 - shutil hands over a text
    function(path)
