"""`sam2unet send`: sends DICOM results to a PACS or another DICOM server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress as RichProgress

from sam2unet_core.errors import DataError, LockedError

if TYPE_CHECKING:
    from sam2unet_core.dicom.servers import Parcel, SendOutcome

NOT_ALL_SENT = 3
"""Exit code: some files were not sent."""
REFUSED = 4
"""Exit code: OUT is in use."""


def send(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Folder that `sam2unet segment` wrote.", show_default=False
        ),
    ],
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="dicomweb+https://HOST/PATH (STOW-RS) or AE@HOST:PORT (C-STORE).",
        ),
    ],
    calling_ae: Annotated[
        str, typer.Option(metavar="NAME", help="Our AE title, for C-STORE.")
    ] = "SAM2UNET",
    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS; https and the options below imply it.")
    ] = False,
    ca: Annotated[
        Path | None, typer.Option(help="PEM file of trusted CAs; the system's by default.")
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM file of our certificate.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="PEM file of its key, if not in the same file.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Send the DICOM files of OUT to a server, in the order of its manifest.

    Run the same command again to send the files that are left. Exit codes: 0 all sent, 2 usage, 3
    some files were not sent, 4 OUT is in use.
    """
    from sam2unet_core.batch.folder import FolderLock
    from sam2unet_core.dicom.servers import Tls, parse_destination, send_files
    from sam2unet_core.dicom.servers.address import check_ae_title

    secured = Tls(tls, ca, cert, key)
    destination = parse_destination(to, tls=secured)
    check_ae_title(calling_ae)
    try:
        parcels = _parcels(out)
        with FolderLock(out), _bar(show=not quiet) as bar:
            job = bar.add_task("sending", total=len(parcels))
            outcome = send_files(
                out,
                _parcels(out),
                to=destination,
                tls=secured,
                calling_ae=calling_ae,
                progress=lambda done, total: bar.update(job, completed=done, total=total),
            )
    except LockedError as error:
        _print_error(str(error))
        raise typer.Exit(REFUSED) from error
    _report(outcome, str(destination), quiet=quiet)
    raise typer.Exit(0 if outcome.complete else NOT_ALL_SENT)


def _parcels(out: Path) -> list[Parcel]:
    """Return the distinct DICOM files in the manifest, in its order."""
    from sam2unet_core.batch.folder import Manifest
    from sam2unet_core.dicom.servers import Parcel

    if not out.is_dir():
        raise DataError(f"{out}: no such folder; give one that `sam2unet segment` wrote")
    lines = Manifest(out).lines.values()
    if not lines:
        raise DataError(f"{out}: no manifest.jsonl; give a folder that `sam2unet segment` wrote")
    files = {
        output.path: Parcel(output.path, output.sha256)
        for line in lines
        for output in line.outputs
        if output.path.endswith(".dcm")
    }
    return list(files.values())


def _bar(*, show: bool) -> RichProgress:
    return RichProgress(console=Console(stderr=True), transient=True, disable=not show)


def _report(outcome: SendOutcome, destination: str, *, quiet: bool) -> None:
    for path, warning in outcome.warnings:
        _print(f"Warning: {path}: stored, but {warning}", "yellow")
    for path, reason in outcome.problems:
        _print_error(f"{path}: {reason}")
    if outcome.stopped:
        _print_error(f"{outcome.stopped} ({outcome.left} files are left)")
    if not quiet:
        earlier = f", {outcome.before} sent before" if outcome.before else ""
        typer.echo(f"{outcome.sent} files sent to {destination}{earlier}")


def _print_error(message: str) -> None:
    _print(f"Error: {message}", "red")


def _print(text: str, style: str) -> None:
    Console(stderr=True, soft_wrap=True).print(text, style=style, markup=False)
    sys.stderr.flush()
