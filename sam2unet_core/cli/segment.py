"""`sam2unet segment`: segments inputs into masks, DICOM SEG, a manifest and a report."""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

from sam2unet_core.batch.formats import AUTO, FORMATS
from sam2unet_core.console import console
from sam2unet_core.errors import (
    ConfigError,
    DataError,
    LockedError,
    NetworkError,
    OutputError,
    Reason,
)
from sam2unet_core.inference.runtimes import RUNTIME_NAMES

if TYPE_CHECKING:
    from sam2unet_core.batch.runner import Outcome, Progress
    from sam2unet_core.batch.settings import Settings
    from sam2unet_core.inference.model import Model
    from sam2unet_core.task import Task
    from sam2unet_core.types import Series, Skipped

REFUSED = 4
"""Exit code: OUT is locked or holds results made with other settings."""
FAILED = 3
"""Exit code: some inputs failed."""
INTERRUPTED = 130
"""Exit code: stopped by Ctrl-C, as in shells."""
WEB = "dicomweb+"
"""Prefix of addresses of inputs on a server."""
UPGRADE = (
    "`sam2unet weights fetch sam2_hiera_large`, then `sam2unet train --task {} --data DIR -o RUN`"
)
"""The commands that get a better network than the bundle's."""


def segment(  # noqa: PLR0913 - the options of the command
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders or archives: DICOM, images, video, volumes; or "
            "dicomweb+https://HOST/PATH?study=UID. With --merge: results folders.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")
    ],
    task: Annotated[
        str | None, typer.Option(help="Task by name, or a task.json; `sam2unet tasks` lists them.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle folder; the installed one by default.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights file; the bundle's by default.")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"Comma-separated: {', '.join((*FORMATS, AUTO))}. {AUTO}, the default, chooses "
            "by the kind of input.",
            show_default=False,
        ),
    ] = "",
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which a pixel counts; the task's by default."),
    ] = None,
    seg_type: Annotated[
        str, typer.Option(help="Type of DICOM SEG: binary, fractional or labelmap.")
    ] = "binary",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    runtime: Annotated[str, typer.Option(help=f"{', '.join(RUNTIME_NAMES)}.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Frames in the network at once.")] = 4,
    force_task: Annotated[
        bool, typer.Option("--force-task", help="Segment sources that the task does not accept.")
    ] = False,
    series: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILTER",
            help="Segment only matching series: modality=, description=, uid= or kind=, with * "
            "and ?, such as modality=ES. Can be given several times.",
        ),
    ] = None,
    plane: Annotated[
        str | None, typer.Option(help="Reformat volumes: axial, coronal or sagittal.")
    ] = None,
    stride: Annotated[int, typer.Option(min=1, help="Segment every Nth frame.")] = 1,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Segment part I of N of the inputs.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the results of shards into OUT.")
    ] = False,
    redo: Annotated[
        bool,
        typer.Option(
            "--redo", help="Segment finished inputs again; replaces results of other settings."
        ),
    ] = False,
    keep_names: Annotated[
        bool | None,
        typer.Option(
            "--keep-names/--pseudonymize",
            help="Name results after their inputs, or use pseudonyms. By default, images keep "
            "their names and DICOM files get pseudonyms.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as JSON, without progress bar.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Segment DICOM studies, endoscopy video, images and volumes into OUT.

    The same command resumes an interrupted run. Exit codes: 0 all done, 2 usage, 3 some
    inputs failed, 4 OUT is in use or holds results made with other settings, 130 stopped by Ctrl-C.
    """
    try:
        if merge:
            _merge([Path(each) for each in inputs], output, quiet=quiet or as_json)
            return
        with importing_torch():
            from sam2unet_core.batch.settings import Settings, Shard

        settings = Settings(
            formats=tuple(name.strip() for name in formats.split(",") if name.strip()),
            stride=stride,
            plane=plane,  # type: ignore[arg-type]
            series=tuple(series or ()),
            seg_type=seg_type,
            names={None: "auto", True: "keep", False: "pseudonymize"}[keep_names],  # type: ignore[arg-type]
            force_task=force_task,
            redo=redo,
            shard=Shard.parse(shard) if shard else None,
            batch_size=batch_size,
        )
        model = open_chosen(
            bundle=bundle,
            task=task,
            weights=weights,
            device=device,
            runtime=runtime,
            threshold=threshold,
        )
        show = not (quiet or as_json)
        note = model.task.metrics.get("note")
        if note and show:
            typer.echo(f"{note}; for better results: {UPGRADE.format(model.task.name)}", err=True)
        with _downloaded(inputs, show=show) as paths, _scratch() as scratch:
            tally = _InputTally(paths, model.task, force=force_task)
            items = _find(paths, settings, output, scratch=scratch, tally=tally)
            outcome = _run(items, output, settings, model, show=show)
    except LockedError as error:
        _print_error(error)
        raise typer.Exit(REFUSED) from error
    except NetworkError as error:
        _print_error(error)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        typer.echo(
            "Interrupted; finished results are kept. Run the same command again to resume.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from error
    if as_json:
        typer.echo(json.dumps({"out": str(output), **outcome.to_dict()}))
    elif not quiet:
        _show(outcome, output, tally)
    for line in tally.complaints():
        _print_error(DataError(line))
    if outcome.stopped:
        _print_error(OutputError(outcome.stopped))
    raise typer.Exit(FAILED if tally.complaints() else outcome.exit_code)


def open_chosen(
    *,
    bundle: Path | None = None,
    task: str | None = None,
    weights: Path | None = None,
    device: str = "auto",
    runtime: str = "auto",
    threshold: float | None = None,
) -> Model:
    """Return the model that the options select.

    Raises:
        SAM2UNetError: as `open_model`, or the threshold is not between 0 and 1.
    """
    from sam2unet_core.inference.model import choose_model, open_model

    if threshold is not None and not 0 < threshold < 1:
        raise ConfigError(f"--threshold {threshold:g}: expected a number between 0 and 1")
    source = choose_model(bundle, task=task, weights=weights)
    model = open_model(source, device=device, runtime=runtime)
    return model if threshold is None else model.with_threshold(threshold)


@contextmanager
def _downloaded(inputs: list[str], *, show: bool) -> Iterator[list[Path]]:
    """Download inputs from servers and return paths."""
    if not any(each.startswith(WEB) for each in inputs):
        yield [Path(each) for each in inputs]
        return
    from sam2unet_core.dicom.servers import local_paths

    with ExitStack() as stack:
        with RichProgress(console=console(stderr=True), transient=True, disable=not show) as bar:
            job = bar.add_task("downloading", total=None, visible=False)

            def tell(done: int, total: int) -> None:
                bar.update(job, completed=done, total=total, visible=True)

            paths = stack.enter_context(local_paths(inputs, progress=tell))
        yield paths


class _InputTally:
    """Counts what was found at each input; an input with nothing to segment is an error.

    Args:
        paths: the inputs.
        task: the task, which accepts some series.
        force: whether to segment the others, too.
    """

    def __init__(self, paths: list[Path], task: Task, *, force: bool) -> None:
        self._task, self._force = task, force
        self._taken: dict[Path, int] = dict.fromkeys(paths, 0)
        self._left_out: dict[Path, Counter[Reason]] = {path: Counter() for path in paths}

    def __call__(self, path: Path, found: Series | Skipped) -> None:
        """Count what was found at an input."""
        from sam2unet_core.types import Skipped, rejection_reason

        if isinstance(found, Skipped):
            self._left_out[path][found.reason] += 1
        elif self._force or rejection_reason(self._task, found.properties) is None:
            self._taken[path] += 1
        else:
            self._left_out[path][Reason.TASK_MISMATCH] += 1

    def complaints(self) -> list[str]:
        """Return one line per input that has files but nothing to segment."""
        return [
            f"{path}: {self._why(reasons)}"
            for path, reasons in self._left_out.items()
            if not self._taken[path] and reasons
        ]

    def mismatches(self) -> str:
        """Return a line about series that the task does not accept; empty if there are none."""
        count = sum(reasons[Reason.TASK_MISMATCH] for reasons in self._left_out.values())
        return self._mismatch(count) if count else ""

    def _why(self, reasons: Counter[Reason]) -> str:
        if reasons[Reason.TASK_MISMATCH]:
            return self._mismatch(reasons[Reason.TASK_MISMATCH])
        parts = [f"{count} {reason}" for reason, count in sorted(reasons.items())]
        return f"nothing to segment ({', '.join(parts)}; manifest.jsonl says why)"

    def _mismatch(self, count: int) -> str:
        accepts = ", ".join(self._task.accepts.modalities) or "other objects"
        return (
            f"{count} series skipped: the task {self._task.name} is for {accepts}; --force-task "
            "segments them anyway"
        )


@contextmanager
def _scratch() -> Iterator[Path]:
    """Create a temporary folder for unpacked archives."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sam2unet-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _find(
    inputs: list[Path], settings: Settings, output: Path, *, scratch: Path, tally: _InputTally
) -> Iterator[Series | Skipped]:
    from sam2unet_core.inputs import find_inputs, parse_series_filter

    for path in inputs:
        try:
            path.stat()
        except OSError as error:
            raise DataError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    chosen = parse_series_filter(settings.series) if settings.series else None
    return find_inputs(
        inputs,
        series_filter=chosen,
        plane=settings.plane,
        out=output,
        scratch=scratch,
        on_found=tally,
    )


def _run(
    items: Iterator[Series | Skipped],
    output: Path,
    settings: Settings,
    model: Model,
    *,
    show: bool,
) -> Outcome:
    from sam2unet_core.batch.runner import run

    with FrameBar(show=show) as bar:
        return run(items, output, settings, model=model, progress=bar.tell)


def _merge(inputs: list[Path], output: Path, *, quiet: bool) -> None:
    from sam2unet_core.batch.merging import merge

    count = merge(inputs, output)
    if not quiet:
        typer.echo(f"{count} manifest lines: {output / 'manifest.jsonl'}")


def _show(outcome: Outcome, output: Path, tally: _InputTally) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in sorted(outcome.statuses.items()))
    rate = outcome.frames / outcome.seconds if outcome.seconds else 0
    typer.echo(f"Inputs: {counts or 'none'}")
    for reason, count in sorted(outcome.reasons.items()):
        typer.echo(f"  {reason}: {count}")
    for code, count in sorted(outcome.warnings.items()):
        typer.echo(f"  warning {code}: {count}")
    if tally.mismatches() and not tally.complaints():
        typer.echo(f"Note: {tally.mismatches()}")
    typer.echo(f"{outcome.frames} frames in {outcome.seconds:.1f} s, {rate:.1f} frames/s")
    typer.echo(f"Report: {output / 'report.html'}")


def _print_error(error: Exception) -> None:
    console(stderr=True, soft_wrap=True).print(f"Error: {error}", style="red")
    sys.stderr.flush()


class _Rate(ProgressColumn):
    """Frames per second of this run."""

    def render(self, task: RichTask) -> Text:
        """Return the rate."""
        done = task.completed - task.fields["before"]
        rate = done / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f} frames/s")


class FrameBar:
    """A context that shows a progress bar on stderr.

    Args:
        show: whether to show it.
    """

    def __init__(self, *, show: bool) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
            console=Console(stderr=True),
            transient=True,
            disable=not show,
        )
        self._job = self._bar.add_task("scanning inputs", total=None, before=0, failed="")

    def __enter__(self) -> FrameBar:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bar."""
        self._bar.stop()

    def tell(self, progress: Progress) -> None:
        """Update the bar."""
        failed = progress.statuses.get("failed", 0)
        self._bar.update(
            self._job,
            description="segmenting" if progress.scanned else "segmenting, still scanning",
            completed=progress.frames_done,
            total=progress.frames_found or None,
            before=progress.frames_before,
            failed=f"{failed} failed" if failed else "",
        )


@contextmanager
def importing_torch() -> Iterator[None]:
    """Disable garbage collection while PyTorch is imported.

    The import creates some 160,000 permanent objects. Collecting them takes 0.1 s during the import
    and 0.2 s at exit. Does nothing if PyTorch is already imported.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
