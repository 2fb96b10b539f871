"""What this machine has for the software, and what to do about what it lacks."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sam2unet_core import __version__
from sam2unet_core.errors import SAM2UNetError
from sam2unet_core.task import Task, installed_bundle, presets

DISTRIBUTION = "sam2unet"
LEAST_MEMORY = 4 * 2**30
LEAST_DISK = 5 * 2**30
NO_FUNCTION = ("all", "dev", "docs", "test")
"""Extras that gather others or serve development."""
CODECS = {
    "JPEG": ("jpeg8_encode", "jpeg8_decode"),
    "JPEG lossless": ("ljpeg_encode", "jpeg8_decode"),
    "JPEG-LS": ("jpegls_encode", "jpegls_decode"),
    "JPEG 2000": ("jpeg2k_encode", "jpeg2k_decode"),
    "HTJ2K": ("htj2k_encode", "jpeg2k_decode"),
    "JPEG XL": ("jpegxl_encode", "jpegxl_decode"),
}
"""Kinds of compressed DICOM frames, with imagecodecs' functions that write and read them."""

State = Literal["ok", "lacking", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the survey.

    Attributes:
        section: heading it belongs under.
        name: what was looked at.
        value: what was found.
        state: `lacking` limits what can be done here, `broken` stops everything.
        remedy: what to do about it; empty if nothing is needed.
    """

    section: str
    name: str
    value: str
    state: State = "ok"
    remedy: str = ""


def survey() -> list[Finding]:
    """Look at this machine. No network is used and nothing is written."""
    return [
        *_versions(),
        *_devices(),
        *_capacity(),
        *_runtimes(),
        *_codecs(),
        *_extras(),
        *_bundle(),
        *_weights(),
    ]


def cpu_features() -> tuple[str, ...]:
    """Return the CPU's instruction sets that matter for speed, as far as they can be seen."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8")
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():  # Linux only
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    return tuple(flag for flag in (*wanted, "asimd", "bf16", "sve") if flag in flags)


def memory_bytes() -> int | None:
    """Return the memory this process may use, a container's limit included; None if unknown."""
    sizes = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if text.isdigit():
            sizes.append(int(text))
    return min(sizes) if sizes else _windows_memory()


def _windows_memory() -> int | None:
    if sys.platform != "win32":
        return None
    kibibytes = ctypes.c_ulonglong()
    ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kibibytes))
    return kibibytes.value * 1024 or None


def _versions() -> Iterator[Finding]:
    section = "Versions"
    yield Finding(section, DISTRIBUTION, __version__)
    yield Finding(section, "Python", f"{platform.python_version()} on {platform.platform()}")
    for name in ("torch", "monai", "numpy", "pydicom", "SimpleITK"):
        version = _installed(name)
        if version:
            yield Finding(section, name, version)
        else:
            remedy = f"install it again: pip install --force-reinstall {DISTRIBUTION}"
            yield Finding(section, name, "not installed", "broken", remedy)


def _devices() -> Iterator[Finding]:
    section = "Devices"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    features = ", ".join(cpu_features()) or "instruction sets not visible"
    yield Finding(section, "CPU", f"{cores} cores; {features}")
    try:
        import torch  # noqa: PLC0415 - it may not load, which is a finding
    except (ImportError, OSError) as error:
        yield Finding(section, "torch", f"does not load: {error}", "broken", "reinstall torch")
        return
    yield Finding(section, "PyTorch on CPU", torch.backends.cpu.get_cpu_capability())
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            yield Finding(section, f"cuda:{index}", f"{device.name}, {_gib(device.total_memory)}")
    else:
        built = torch.version.cuda
        found = f"built for CUDA {built}, no GPU found" if built else "this PyTorch is CPU-only"
        remedy = "training and inference run on the CPU; for a GPU see https://pytorch.org"
        yield Finding(section, "CUDA", found, "lacking", remedy)
    if torch.backends.mps.is_available():
        yield Finding(section, "mps", "Apple GPU")


def _capacity() -> Iterator[Finding]:
    section = "Capacity"
    memory = memory_bytes()
    if memory is None:
        yield Finding(section, "memory", "unknown")
    elif memory < LEAST_MEMORY:
        remedy = "use a small network (--variant starter) or another machine"
        yield Finding(section, "memory", _gib(memory), "lacking", remedy)
    else:
        yield Finding(section, "memory", _gib(memory))
    for name, folder in (("disk, working folder", Path.cwd()), ("disk, home", Path.home())):
        free = shutil.disk_usage(folder).free
        state: State = "ok" if free >= LEAST_DISK else "lacking"
        remedy = "" if state == "ok" else f"free some space: {_gib(LEAST_DISK)} are comfortable"
        yield Finding(section, name, f"{_gib(free)} free", state, remedy)


def _runtimes() -> Iterator[Finding]:
    yield Finding("Runtimes", "torch", _installed("torch") or "not installed")
    for name, extra in (("openvino", "openvino"), ("onnxruntime", "onnx")):
        version = _installed(name)
        if version:
            yield Finding("Runtimes", name, version)
        else:
            yield Finding("Runtimes", name, "not installed", "lacking", _install_line(extra))


def _codecs() -> Iterator[Finding]:
    """Decode a small frame with each kind of decoder, so that "decodes" is seen and not assumed."""
    remedy = "pip install --force-reinstall imagecodecs"
    try:
        import imagecodecs  # noqa: PLC0415 - what is broken there is a finding, not the end
    except (ImportError, OSError) as error:
        yield Finding("DICOM decoders", "imagecodecs", type(error).__name__, "broken", remedy)
        return
    for family, (encode, decode) in CODECS.items():
        frame = np.arange(64, dtype=np.uint8).reshape(8, 8)
        try:
            found = getattr(imagecodecs, decode)(getattr(imagecodecs, encode)(frame))
            there = bool(np.abs(found.astype(int) - frame).max() <= 2)
        except Exception:  # a build without that library
            there = False
        if there:
            yield Finding("DICOM decoders", family, "decodes")
        else:
            yield Finding("DICOM decoders", family, "does not decode", "lacking", remedy)


def _extras() -> Iterator[Finding]:
    for extra, packages in sorted(_extra_packages().items()):
        found = {name: _installed(name) for name in packages}
        value = ", ".join(f"{name} {version or 'missing'}" for name, version in found.items())
        if all(found.values()):
            yield Finding("Extras", extra, value)
        else:
            yield Finding("Extras", extra, value, "lacking", _install_line(extra))


def _extra_packages() -> dict[str, list[str]]:
    """Return the packages of each extra that adds a function, from our own metadata."""
    extras: dict[str, list[str]] = {}
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder, not installed
        return extras
    for requirement in requirements:
        match = re.match(r"([\w.-]+).*;.*extra == ['\"](\w+)['\"]", requirement)
        if match and match[1] != DISTRIBUTION and match[2] not in NO_FUNCTION:
            extras.setdefault(match[2], []).append(match[1])
    return extras


def _bundle() -> Iterator[Finding]:
    try:
        folder = installed_bundle()
        task = Task.load(folder / "configs" / "task.json")
    except SAM2UNetError as error:
        yield Finding("Bundle", "bundle", str(error), "broken", f"install {DISTRIBUTION} again")
        return
    yield Finding("Bundle", "folder", str(folder))
    yield Finding("Bundle", "task", f"{task.title} ({task.name})")
    yield Finding("Bundle", "presets", ", ".join(presets()))


def _weights() -> Iterator[Finding]:
    try:
        from sam2unet_core.network.checkpoint import cache_folder  # noqa: PLC0415 - needs torch
    except (ImportError, OSError):
        return
    folder = cache_folder()
    files = folder.iterdir() if folder.is_dir() else ()
    names = sorted(path.name for path in files if path.suffix in (".pt", ".pth", ".safetensors"))
    if names:
        yield Finding("Weights", str(folder), ", ".join(names))
        return
    remedy = (
        "fetch them (sam2unet weights fetch sam2_hiera_large) or bring them on a disk "
        "(sam2unet weights import FILE); `starter` and `nano` networks need none"
    )
    yield Finding("Weights", str(folder), "no SAM2 weights", "lacking", remedy)


def _install_line(extra: str) -> str:
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
