"""The extension is configured and packaged against a stub of Slicer's build system.

The stub would prove itself only, so what it and the extension call is compared with the names and
arguments of Slicer's own CMake files as well; they were read in Slicer's sources, main branch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import cmake
import numpy as np
import pytest
from PIL import Image

STUB = Path(__file__).parent / "cmake_stub"
MODULES = "lib/Slicer-5.10/qt-scripted-modules"
ARGUMENTS = {
    # CMake/SlicerMacroBuildScriptedModule.cmake
    "slicerMacroBuildScriptedModule": (
        {"WITH_GENERIC_TESTS", "WITH_SUBDIR", "VERBOSE"},
        {"NAME"},
        {"SCRIPTS", "RESOURCES"},
    ),
    # CMake/SlicerMacroPythonTesting.cmake, where it is written SLICER_ADD_PYTHON_UNITTEST
    "slicer_add_python_unittest": (set(), {"TESTNAME_PREFIX", "SCRIPT"}, {"SLICER_ARGS"}),
}
SLICER_VARIABLES = {  # set by CMake/SlicerConfig.cmake.in
    "Slicer_USE_FILE",
    "Slicer_EXTENSION_GENERATE_CONFIG",
    "Slicer_EXTENSION_CPACK",
    "Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR",
}
METADATA = {  # read by CMake/SlicerExtensionCPack.cmake
    "EXTENSION_HOMEPAGE",
    "EXTENSION_CATEGORY",
    "EXTENSION_CONTRIBUTORS",
    "EXTENSION_DESCRIPTION",
    "EXTENSION_ICONURL",
    "EXTENSION_SCREENSHOTURLS",
    "EXTENSION_DEPENDS",
}


def run(*words: object) -> subprocess.CompletedProcess[str]:
    program = Path(cmake.CMAKE_BIN_DIR) / str(words[0])
    return subprocess.run(
        [program, *map(str, words[1:])], capture_output=True, text=True, check=False
    )


def configured(source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    return run("cmake", "-S", source, "-B", build, f"-DSlicer_DIR={STUB}", "-DBUILD_TESTING=ON")


def lists(repository: Path) -> list[Path]:
    return [
        repository / "CMakeLists.txt",
        *(repository / "slicer_extension").rglob("CMakeLists.txt"),
    ]


@pytest.fixture(scope="module")
def build(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    done = configured(repository, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_each_script_and_resource_of_the_module_is_listed(build: Path, repository: Path) -> None:
    copied = {
        path.relative_to(build / MODULES).as_posix()
        for path in (build / MODULES).rglob("*")
        if path.is_file()
    }
    module = repository / "slicer_extension" / "SAM2UNet"
    wanted = {
        path.relative_to(module).as_posix()
        for pattern in ("*.py", "SAM2UNetLib/**/*.py", "Resources/**/*.*")
        for path in module.glob(pattern)
        if "__pycache__" not in path.parts
    }
    assert copied - {"SAM2UNetDICOMVideoPlugin.py"} == wanted


def test_a_listed_file_that_is_missing_stops_the_configuration(
    repository: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    text = (repository / "CMakeLists.txt").read_text()
    (source / "CMakeLists.txt").write_text(text)
    for each in ("SAM2UNet", "SAM2UNetDICOMVideoPlugin"):
        (source / "slicer_extension" / each).mkdir(parents=True)
        lists_of_it = repository / "slicer_extension" / each / "CMakeLists.txt"
        (source / "slicer_extension" / each / "CMakeLists.txt").write_text(lists_of_it.read_text())
    done = configured(source, tmp_path / "build")
    assert done.returncode != 0
    assert "nonexistent file 'SAM2UNet.py'" in done.stderr


def test_the_package_holds_module_plugin_and_the_sources_of_its_environment(build: Path) -> None:
    assert run("cmake", "--build", build).returncode == 0
    done = run("cpack", "--config", build / "CPackConfig.cmake", "-B", build)
    assert done.returncode == 0, done.stderr
    with tarfile.open(build / "34567-linux-amd64-SAM2UNet.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        f"{MODULES}/SAM2UNet.py",
        f"{MODULES}/SAM2UNetLib/Widget.py",
        f"{MODULES}/Resources/UI/SAM2UNet.ui",
        f"{MODULES}/Resources/Icons/SAM2UNet.png",
        f"{MODULES}/SAM2UNetDICOMVideoPlugin.py",
        f"{MODULES}/SAM2UNetSource/pyproject.toml",
        f"{MODULES}/SAM2UNetSource/constraints.txt",
        f"{MODULES}/SAM2UNetSource/sam2unet_core/cli/main.py",
        f"{MODULES}/SAM2UNetSource/monai_bundle/configs/task.json",
        f"{MODULES}/SAM2UNetSource/monai_bundle/models/model.safetensors",
        "share/Slicer-5.10/SAM2UNet.s4ext",
    ):
        assert name in names, name
    assert not [name for name in names if "__pycache__" in name]


def test_ctest_runs_the_modules_own_tests(build: Path) -> None:
    listed = run("ctest", "--test-dir", build, "-N").stdout
    assert "py_SAM2UNet\n" in listed
    assert "py_SAM2UNetEnvironmentTest\n" in listed


def test_calls_have_the_names_and_arguments_of_slicers_macros(repository: Path) -> None:
    for path in lists(repository):
        text = re.sub(r"#.*", "", path.read_text())
        for name, arguments in re.findall(r"^\s*(slicer\w*)\(([^)]*)\)", text, re.M | re.I):
            assert name in ARGUMENTS, f"{path}: {name}"
            keywords = set(re.findall(r"\b[A-Z][A-Z_]+\b(?![^{]*\})", arguments))
            assert keywords <= set.union(*ARGUMENTS[name]), path
        used = set(re.findall(r"\$\{(Slicer_\w+)\}", text))
        assert used <= SLICER_VARIABLES, path


def test_the_stub_has_the_arguments_of_slicers_macros() -> None:
    text = (STUB / "UseSlicer.cmake").read_text()
    for name, kinds in ARGUMENTS.items():
        body = text[text.index(f"macro({name})") :]
        for variable, words in zip(
            ("options", "oneValueArgs", "multiValueArgs"), kinds, strict=True
        ):
            found = re.search(rf"set\({variable}([^)]*)\)", body)
            assert set(found[1].split()) == words, (name, variable)


def test_the_metadata_is_whole_and_agrees_with_the_catalog_entry(repository: Path) -> None:
    text = (repository / "CMakeLists.txt").read_text()
    metadata = dict(re.findall(r'^set\((EXTENSION_\w+) "([^"]*)"\)', text, re.M))
    assert set(metadata) == METADATA
    assert all(metadata.values())
    assert re.search(r"^project\(SAM2UNet\)", text, re.M)
    entry = json.loads((repository / "slicer_extension" / "SAM2UNet.json").read_text())
    assert set(entry) == {
        "$schema",
        "build_dependencies",
        "build_subdirectory",
        "category",
        "scm_revision",
        "scm_url",
        "tier",
    }
    assert entry["category"] == metadata["EXTENSION_CATEGORY"]
    assert entry["scm_url"] == metadata["EXTENSION_HOMEPAGE"] + ".git"
    assert entry["build_dependencies"] == []
    for url in (metadata["EXTENSION_ICONURL"], *metadata["EXTENSION_SCREENSHOTURLS"].split()):
        assert (repository / url.partition("/main/")[2]).is_file(), url


def test_the_icon_is_what_its_script_draws(repository: Path, tmp_path: Path) -> None:
    script = repository / "slicer_extension" / "make_icon.py"
    subprocess.run([sys.executable, script, tmp_path / "icon.png"], check=True, capture_output=True)
    icon = repository / "slicer_extension" / "SAM2UNet" / "Resources" / "Icons" / "SAM2UNet.png"
    drawn, kept = (np.asarray(Image.open(path)) for path in (tmp_path / "icon.png", icon))
    assert drawn.shape == (128, 128, 4)
    assert np.abs(drawn.astype(int) - kept.astype(int)).max() <= 1
