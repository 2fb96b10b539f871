"""What Slicer keeps for the user between starts, and the variables it was started with."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer

from .Environment import ExistingEnvironment, OwnEnvironment, dataFolder

PREFIX = "SAM2UNet/"


def setting(name: str, default: str) -> str:
    """Return a setting of this module that Slicer keeps for the user."""
    return str(slicer.util.settingsValue(PREFIX + name, default))


def keep(name: str, value: str) -> None:
    """Keep a setting of this module for the user."""
    qt.QSettings().setValue(PREFIX + name, value)


def startupVariables() -> dict[str, str]:
    """Return the environment variables as they were before Slicer's launcher changed them."""
    return slicer.util.startupEnvironment()


def chosenCommand() -> list[str]:
    """Return the command that starts `sam2unet`, as chosen on the tab Setup.

    Raises:
        EnvironmentProblem: there is no environment that can be used; says what to do.
    """
    if setting("kind", "own") == "existing":
        return ExistingEnvironment(Path(setting("python", ""))).command()
    folder = setting("folder", "")
    return OwnEnvironment(Path(folder) if folder else dataFolder() / "environment").command()
