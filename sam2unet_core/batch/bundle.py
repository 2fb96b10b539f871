"""A batch run over a folder, as the bundle's inference configuration starts it."""

from __future__ import annotations

import logging
from pathlib import Path

from sam2unet_core.batch.formats import AUTO
from sam2unet_core.batch.runner import Outcome, run
from sam2unet_core.batch.settings import Settings
from sam2unet_core.errors import OutputError, SAM2UNetError
from sam2unet_core.inference.model import Model
from sam2unet_core.inputs import find_inputs

logger = logging.getLogger(__name__)


class FolderRun:
    """A batch run as a component of the bundle; it writes the same files as `sam2unet segment`.

    Args:
        dataset_dir: folder of inputs, or of a dataset with `images/`.
        output_dir: folder for the results.
        model: the model, which knows its weights file.
        overlays: also write pictures with outlines.
        probabilities: also write probability maps.
    """

    def __init__(
        self,
        dataset_dir: str,
        output_dir: str,
        model: Model,
        overlays: bool = False,
        probabilities: bool = False,
    ) -> None:
        folder = Path(dataset_dir)
        images = folder / "images"
        self._inputs, self._out = images if images.is_dir() else folder, Path(output_dir)
        self._model = model
        more = [("overlay", overlays), ("probabilities", probabilities)]
        wanted = tuple(name for name, asked in more if asked)
        self._settings = Settings(formats=(AUTO, *wanted))

    def run(self) -> Outcome:
        """Segment the folder, or resume an interrupted run.

        Raises:
            OutputError: the run stopped early, for example because the disk is full.
            SAM2UNetError: some inputs failed; the others are done.
        """
        outcome = run(
            find_inputs([self._inputs], out=self._out),
            self._out,
            self._settings,
            model=self._model,
        )
        counts = ", ".join(f"{count} {name}" for name, count in sorted(outcome.statuses.items()))
        logger.info("inputs: %s; results in %s", counts, self._out)
        if outcome.stopped:
            raise OutputError(outcome.stopped)
        failed = outcome.statuses.get("failed", 0)
        if failed:
            raise SAM2UNetError(
                f"{failed} of {sum(outcome.statuses.values())} inputs failed, the others are "
                f"done; {self._out / 'manifest.jsonl'} says which failed and why"
            )
        return outcome
