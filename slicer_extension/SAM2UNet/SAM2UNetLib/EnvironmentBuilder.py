"""Carries out a plan in the background, step by step, and reports its progress.

Standard library only. `poll` is called from a timer; it never waits.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping

from .BackgroundProcess import BackgroundProcess, cleanEnvironment
from .Environment import EnvironmentProblem, State
from .EnvironmentPlan import PACKAGES, Plan, Step, readDoctor

REMEDIES = (
    (
        r"No space left|WinError 112|not enough space",
        "The disk is full. Free some space, then press Repair.",
    ),
    (
        r"ProxyError|Tunnel connection failed|407 Proxy",
        "The proxy refused the connection. Set HTTPS_PROXY to its address before Slicer starts, or "
        "use a folder of wheels.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError",
        "The certificate of the connection is not trusted. Set PIP_CERT to your site's "
        "certificate file before Slicer starts, or use a folder of wheels.",
    ),
    (
        r"NewConnectionError|NameResolutionError|name resolution|getaddrinfo|Failed to establish|"
        r"ConnectTimeout|ReadTimeout|timed out",
        "The internet cannot be reached. Try again, or use a folder of wheels made on another "
        "computer.",
    ),
    (
        r"requires a different Python|Requires-Python",
        "This Python version is not supported: sam2unet needs Python 3.11 to 3.13.",
    ),
    (
        r"No matching distribution|Could not find a version",
        "A package is missing for this Python. Fill a folder of wheels on a machine with the same "
        "system and Python version; or, without such a folder, choose CPU as PyTorch.",
    ),
    (
        r"No module named pip",
        "The base Python has no pip. Use an existing environment instead.",
    ),
    (
        r"Permission denied|Access is denied|WinError 5\b|WinError 32",
        "A file is in use or cannot be written. Close other Slicer windows and press Repair, or "
        "choose another folder.",
    ),
)
"""What pip's messages mean for a person: pattern, what to do. The first that fits counts."""
UNKNOWN = "Copy the log and look at its last lines. Repair starts again."
KEPT_LINES = 2000


class EnvironmentBuilder:
    """One build.

    Args:
        plan: what to do.
        variables: environment variables to start from; this process's own by default.
    """

    def __init__(self, plan: Plan, *, variables: Mapping[str, str] | None = None) -> None:
        self.plan = plan
        self.log: list[str] = []
        self.finished = False
        self._variables = cleanEnvironment(os.environ if variables is None else variables)
        self._mode = "venv"
        self._steps: list[Step] = []
        self._index = 0
        self._collected = 0
        self._stepLines: list[str] = []
        self._process: BackgroundProcess | None = None

    def start(self) -> None:
        """Clear the folder and begin.

        Raises:
            EnvironmentProblem: the plan has a problem, or the folder holds something else.
        """
        own = self.plan.environment
        if self.plan.problem:
            raise EnvironmentProblem(self.plan.problem)
        if own.state() is State.FOREIGN:
            raise EnvironmentProblem(
                f"{own.folder}: is not empty and is not an environment of this module. "
                "Choose another folder."
            )
        own.remove()
        self._mark("building")
        self._steps = self._stepsOf(self._mode)
        self._begin(0)

    def poll(self) -> list[tuple]:
        """Return what happened since the last call.

        Events:
            ("step", number, count, text), ("line", text), ("progress", 0 to 1) and at last one of
            ("finished", what was found), ("failed", message, remedy), ("cancelled",).
        """
        events: list[tuple] = []
        if self.finished or self._process is None:
            return events
        for line in self._process.poll():
            self._keep(line)
            events.append(("line", line))
            if re.match(r"\s*(Collecting|Processing) ", line):
                self._collected += 1
        events.append(("progress", self._progress()))
        if self._process.returncode is not None:
            events += self._next(self._process.returncode)
        return events

    def wait(self, timeout: float) -> list[tuple]:
        """Wait for something to happen and return it: for scripts and tests, not for the panel.

        Raises:
            TimeoutError: nothing happened for `timeout` seconds.
        """
        if self._process is not None and not self.finished:
            self._process.wait(timeout)
        return self.poll()

    def cancel(self) -> list[tuple]:
        """Stop the build, its processes included. The folder stays, to be repaired or removed."""
        if self.finished:
            return []
        if self._process is not None:
            self._process.stop()
        self.finished = True
        self._mark("cancelled")
        return [("cancelled",)]

    def _stepsOf(self, mode: str) -> list[Step]:
        own = self.plan.environment
        check = own.commandFor({"mode": mode, "base": str(self.plan.base)})
        trial = Step("Testing the network's software", [*check, "doctor", "--json"])
        return [*self.plan.steps(mode), trial]

    def _begin(self, index: int) -> list[tuple]:
        self._index = index
        self._stepLines = []
        step = self._steps[index]
        self._keep("$ " + " ".join(step.command))
        self._process = BackgroundProcess(step.command, environment=self._variables)
        try:
            self._process.start()
        except OSError as error:
            reason = (error.strerror or "cannot be started").lower()
            return self._fail(f"{step.command[0]}: {reason}", "Choose another Python.")
        return [("step", index + 1, len(self._steps), step.label)]

    def _next(self, code: int) -> list[tuple]:
        step = self._steps[self._index]
        installing = step.label == "Installing packages"
        if code != 0 and self._mode == "venv" and not installing and self._index < 2:
            return self._changeMode()
        if code != 0:
            return self._failed(step, code)
        if self._index + 1 < len(self._steps):
            return self._begin(self._index + 1)
        works, found = readDoctor(self._stepLines)
        if not works:
            return self._fail(found, "Press Repair; if that does not help, copy the log.")
        self.finished = True
        self._mark("ready", found=found)
        return [("progress", 1.0), ("finished", found)]

    def _changeMode(self) -> list[tuple]:
        """Go on without a virtual environment: this Python cannot make one that works."""
        self._keep(
            "This Python cannot make a working virtual environment; using a plain folder instead."
        )
        self._mode = "target"
        self._mark("building")
        self.plan.environment.writeRunner()
        self._steps = self._stepsOf(self._mode)
        return self._begin(0)

    def _failed(self, step: Step, code: int) -> list[tuple]:
        text = "\n".join(self._stepLines)
        remedy = next((what for pattern, what in REMEDIES if re.search(pattern, text)), UNKNOWN)
        errors = [line for line in self._stepLines if line.startswith("ERROR")]
        last = (errors or [line for line in self._stepLines if line.strip()] or ["no message"])[-1]
        return self._fail(f"{step.label} ended with code {code}: {last.strip()}", remedy)

    def _fail(self, message: str, remedy: str) -> list[tuple]:
        self.finished = True
        self._mark("failed", message=message)
        return [("failed", message, remedy)]

    def _progress(self) -> float:
        """Steps count little, packages much; never 1 before the end."""
        if self._steps[self._index].label != "Installing packages":
            return 0.95 if self._index == len(self._steps) - 1 else 0.02 * (self._index + 1)
        return 0.05 + 0.85 * min(1.0, self._collected / PACKAGES)

    def _keep(self, line: str) -> None:
        self._stepLines.append(line)
        self.log.append(line)
        del self.log[:-KEPT_LINES]

    def _mark(self, state: str, **more: str) -> None:
        content = {
            "schema": 1,
            "state": state,
            "mode": self._mode,
            "base": str(self.plan.base),
            "torch": self.plan.torch.name,
            "when": time.strftime("%Y-%m-%d %H:%M:%S"),
            **more,
        }
        self.plan.environment.writeMarker(content)
