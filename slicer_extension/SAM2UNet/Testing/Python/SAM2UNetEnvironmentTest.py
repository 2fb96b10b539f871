"""Runs in Slicer: its Python makes an environment that works, as one or the other kind."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
from pathlib import Path

import slicer

MODULE = Path(slicer.util.modulePath("SAM2UNet")).parent
if str(MODULE) not in sys.path:
    sys.path.insert(0, str(MODULE))

PATIENCE_S = 300


class SAM2UNetEnvironmentTest(unittest.TestCase):
    """What only a real Slicer can tell: whether PythonSlicer makes a virtual environment."""

    def test_pythonSlicerHasPip(self) -> None:
        """Pip must be there, for both kinds of environment."""
        from SAM2UNetLib.BackgroundProcess import BackgroundProcess, cleanEnvironment
        from SAM2UNetLib.Environment import slicerPython

        variables = cleanEnvironment(slicer.util.startupEnvironment())
        process = BackgroundProcess(
            [str(slicerPython()), "-m", "pip", "--version"], environment=variables
        )
        process.start()
        while process.returncode is None:
            process.wait(PATIENCE_S)
            process.poll()
        self.assertEqual(process.returncode, 0)

    def test_oneKindOfEnvironmentCanBeMade(self) -> None:
        """Begins a build that fetches nothing: it must come as far as installing packages."""
        from SAM2UNetLib.Environment import OwnEnvironment, slicerPython
        from SAM2UNetLib.EnvironmentBuilder import EnvironmentBuilder
        from SAM2UNetLib.EnvironmentPlan import TorchBuild, makePlan

        with tempfile.TemporaryDirectory() as folder:
            wheels = Path(folder) / "wheels"
            wheels.mkdir()
            (wheels / "no_package-1-py3-none-any.whl").write_bytes(b"")
            plan = makePlan(
                OwnEnvironment(Path(folder) / "environment"),
                slicerPython(),
                wheels=wheels,
                torch=TorchBuild("cpu", "CPU only", 1, 1),
            )
            builder = EnvironmentBuilder(plan, variables=dict(os.environ))
            builder.start()
            events = []
            while not builder.finished:
                events += builder.wait(PATIENCE_S)
            self.assertIn("Installing packages", str(events))


if __name__ == "__main__":
    unittest.main()
