"""A batch run: writes results, and one manifest line per input, also if it fails."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sam2unet_core import __version__
from sam2unet_core.batch.folder import FolderLock, Line, Manifest, RunRecord
from sam2unet_core.batch.formats import AUTO, Staging, UnitWork
from sam2unet_core.batch.settings import Settings
from sam2unet_core.batch.stages import Begin, Decoder, End, Item, Passed, Problem, Segmented
from sam2unet_core.batch.summary import absorb_shards, entry_of, write_summary
from sam2unet_core.batch.unit_writer import UnitWriter
from sam2unet_core.batch.units import Naming, PreviousResults, PrivateFolder, Unit, unit_rows
from sam2unet_core.dicom.files import quiet
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.errors import OutputError, SAM2UNetError
from sam2unet_core.files import PART, file_sha256
from sam2unet_core.inference.engine import Engine, FrameFailure, FrameResult
from sam2unet_core.inference.model import Model
from sam2unet_core.inference.threads import in_background
from sam2unet_core.inputs import find_inputs
from sam2unet_core.types import Series

SCAN_AHEAD = 4096
"""Inputs that are scanned in advance, to estimate the remaining time."""
RESULTS_AHEAD = 2
"""Results that can wait to be written."""


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        frames_found: frames of the inputs found so far.
        scanned: whether all inputs have been found.
        frames_done: frames done in this run or a previous one.
        frames_before: frames done in a previous run.
        statuses: number of inputs by status.
    """

    frames_found: int = 0
    scanned: bool = False
    frames_done: int = 0
    frames_before: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        statuses: number of inputs by status.
        reasons: number of inputs by reason.
        warnings: number of inputs by warning.
        frames: number of frames segmented in this run.
        seconds: duration of the run.
        stopped: why it stopped early; empty if it did not.
    """

    statuses: dict[str, int]
    reasons: dict[str, int]
    frames: int
    seconds: float
    stopped: str = ""
    warnings: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if all inputs are done, 3 if some failed or the run stopped early."""
        return 3 if self.stopped or self.statuses.get("failed") else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON types."""
        return {"exit_code": self.exit_code, **asdict(self)}


def run(
    items: Iterable[Item],
    out: Path | str,
    settings: Settings,
    *,
    model: Model,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Segment inputs into a results folder, or resume an interrupted run.

    Args:
        items: series and skipped files; see `sam2unet_core.inputs`.
        out: the results folder; created if it does not exist.
        settings: what to write and how.
        model: the model; its task has the threshold.
        progress: called after each frame and each input.

    Raises:
        LockedError: another run is using the folder, or it holds results made with other settings.
        OutputError: the folder cannot be written to.
    """
    suffix = settings.shard.suffix if settings.shard else ""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FolderLock(folder, suffix=suffix), quiet():  # warnings may quote patient data
            job = _Run(folder, settings, model, progress)
            outcome = job.go(items)
            job.close(outcome)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(f"{folder}: cannot be written: {reason}") from error
    return outcome


class _Run:
    """One run in a locked folder."""

    def __init__(
        self,
        out: Path,
        settings: Settings,
        model: Model,
        progress: Callable[[Progress], None],
    ) -> None:
        suffix = settings.shard.suffix if settings.shard else ""
        self._out, self._settings, self._model = out, settings, model
        self._report_progress = progress
        self._record = RunRecord(out, settings, model)
        self._record.save()
        self._staging = f"{PART}{suffix}"
        shutil.rmtree(out / self._staging, ignore_errors=True)
        self._private = PrivateFolder(out, suffix=suffix)
        self._private.create()
        if settings.shard is None:
            absorb_shards(out)
        self._manifest = Manifest(out, suffix=suffix)
        self._progress = Progress()
        self._latest: dict[str, Line] = {}
        self._frames = 0

    def go(self, items: Iterable[Item]) -> Outcome:
        """Segment all inputs."""
        started = time.perf_counter()
        stopped = ""
        previous = PreviousResults(self._manifest.lines, self._private.sources())
        decoder = Decoder(
            self._counted(items),
            self._model.task,
            self._settings,
            Naming(self._settings.names, previous),
            lambda unit: unit.key(self._record.digest),
            self._done_lines,
        )
        engine = Engine.for_throughput(self._model, batch_size=self._settings.batch_size)
        segmented: Iterator[Segmented] = engine.through(decoder.events())
        try:
            with (
                engine,
                in_background(segmented, limit=RESULTS_AHEAD) as results,
            ):
                for event in results:
                    self._handle(event, results)
        except OutputError as error:
            stopped = str(error)
        finally:
            shutil.rmtree(self._out / self._staging, ignore_errors=True)
        return Outcome(
            dict(Counter(line.status for line in self._latest.values())),
            dict(Counter(line.reason for line in self._latest.values() if line.reason)),
            self._frames,
            round(time.perf_counter() - started, 3),
            stopped,
            dict(Counter(code for line in self._latest.values() for code in line.warnings)),
        )

    def close(self, outcome: Outcome) -> None:
        """Write the record and the summary."""
        with suppress(OSError) if outcome.stopped else nullcontext():
            self._record.end(outcome.to_dict())
            write_summary(self._out, settings_hash=self._record.digest)

    def _handle(self, event: Segmented, results: Iterator[Segmented]) -> None:
        if isinstance(event, Passed):
            self._note(event.lines)
            changed = [line for line in event.lines if not self._known(line)]
            self._append(changed, event.rows if changed else ())
            self._progress.frames_done += event.frames
            self._progress.frames_before += event.frames
            self._report_progress(self._progress)
        elif isinstance(event, Begin):
            self._write(event, results)

    def _write(self, begin: Begin, results: Iterator[Segmented]) -> None:
        writer = UnitWriter(self._work(begin), key=begin.key)
        for event in results:
            if isinstance(event, FrameResult):
                writer.add(event)
                self._frames += 1
                self._progress.frames_done += 1
                self._report_progress(self._progress)
            elif isinstance(event, FrameFailure):
                writer.failed(event)
            elif isinstance(event, End):
                lines, findings, problem = writer.finish(event)
                break
        else:
            raise RuntimeError("no end of the unit's frames")
        if findings.frames:
            outputs = [each.path for line in lines for each in line.outputs]
            cautions = writer.cautions.all_texts()
            entry = entry_of(begin.unit, findings, outputs=outputs, cautions=cautions)
            self._private.save_entry(begin.unit.ids[0], entry)
        else:
            self._private.drop_entry(begin.unit.ids[0])
        if problem is not None:
            self._log(begin.unit, problem)
        self._note(lines)
        self._remove_previous(lines)
        self._append([line for line in lines if not self._known(line)], unit_rows(begin.unit))
        self._report_progress(self._progress)
        if writer.out_of_space:
            raise OutputError(
                f"{self._out}: the disk is full; free some space, then run the same command again "
                "to resume"
            )

    def _work(self, begin: Begin) -> UnitWork:
        model = self._model
        provenance = Provenance(
            key=begin.key,
            started=self._record.started,
            version=__version__,
            weights_sha256=model.weights_sha256 or "unknown",
            runtime=model.runtime.name,
            precision=model.runtime.precision,
            threshold=model.task.threshold,
            model_note=str(model.task.metrics.get("note", "")),
            forced_task=self._settings.force_task,
        )
        staging = Staging(self._out, self._staging)
        return UnitWork(begin.unit, staging, model, provenance, self._settings)

    def _counted(self, items: Iterable[Item]) -> Iterator[Item]:
        with in_background(self._scanned(items), limit=SCAN_AHEAD) as found:
            yield from found

    def _scanned(self, items: Iterable[Item]) -> Iterator[Item]:
        """Count the frames of the inputs; runs ahead of decoding."""
        stride = self._settings.stride
        for item in items:
            if isinstance(item, Series):
                self._progress.frames_found += -(-item.frame_count // stride)
            yield item
        self._progress.scanned = True

    def _done_lines(self, unit: Unit, key: str) -> tuple[Line, ...] | None:
        """Return the lines of a unit that is done and whose files are complete; else None."""
        found = [self._manifest.lines.get(identity) for identity in unit.ids]
        lines = [line for line in found if line is not None]
        if len(lines) < len(found) or any(line.key != key for line in lines):
            return None
        if any(line.status not in ("done", "empty") for line in lines):
            return None
        outputs = {each.path: each.sha256 for line in lines for each in line.outputs}
        whole = all(_is_whole(self._out / path, sha256) for path, sha256 in outputs.items())
        return tuple(lines) if whole else None

    def _known(self, line: Line) -> bool:
        return line.same_result(self._manifest.lines.get(line.id))

    def _note(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._latest[line.id] = line
            self._progress.statuses[line.status] += 1

    def _append(self, lines: Iterable[Line], rows: Iterable[dict[str, str]]) -> None:
        try:
            self._private.add(rows)
            self._manifest.append(lines)
        except OSError as error:
            raise OutputError(
                f"{self._out}: the manifest cannot be written ({error.strerror}); free some "
                "space, then run the same command again to resume"
            ) from error

    def _remove_previous(self, lines: Iterable[Line]) -> None:
        """Remove outputs of previous runs that these inputs no longer have, as after `--redo`."""
        now = {each.path for line in lines for each in line.outputs}
        for line in lines:
            before = self._manifest.lines.get(line.id)
            for each in before.outputs if before else ():
                if each.path not in now:
                    (self._out / each.path).unlink(missing_ok=True)

    def _log(self, unit: Unit, problem: Problem) -> None:
        if problem.detail:
            with (self._out / "private" / "errors.log").open("a", encoding="utf-8") as stream:
                stream.write(f"{unit.ids[0]}\n{problem.detail}\n")


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


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
