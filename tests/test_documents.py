"""What the documents promise is there: commands, files, links, pinned versions."""

from __future__ import annotations

import re
import runpy
import shlex
import textwrap
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

from sam2unet_core import __version__
from sam2unet_core.batch.formats import FORMATS
from sam2unet_core.cli import app
from sam2unet_core.cli.main import COMMANDS
from sam2unet_core.errors import Reason
from sam2unet_core.inference.runtimes import RUNTIMES
from sam2unet_core.network import VARIANTS
from sam2unet_core.phantom.dicom import write_studies
from sam2unet_core.task import load_preset, presets
from sam2unet_core.types import WARNINGS

DEMO = (
    "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt . && .venv/bin/sam2unet demo"
)
TESTS = (
    'python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[test]"'
    " && .venv/bin/python -m pytest"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def test_readme_holds_exactly_two_setup_commands_each_on_one_line(repository: Path) -> None:
    lines = [line.strip() for line in _read(repository / "README.md").splitlines()]
    assert [line for line in lines if "venv" in line and "pip install" in line] == [DEMO, TESTS]


def test_readme_says_that_it_is_no_medical_device(repository: Path) -> None:
    for name in ("README.md", "docs/index.md", "monai_bundle/docs/README.md"):
        assert "not a medical device" in _read(repository / name)


def test_ci_runs_the_readmes_test_command_and_demo(repository: Path) -> None:
    script = _read(repository / ".ci" / "run")
    assert 'install -c constraints.txt -e ".[test]"' in script
    assert re.search(r'"\$bin/python" -m pytest$', script, re.MULTILINE)
    assert 'sam2unet" demo' in script
    assert "CI=true" in script
    assert (repository / ".ci" / "run").stat().st_mode & 0o100


def test_links_to_files_lead_somewhere(repository: Path) -> None:
    dead = [
        f"{page.relative_to(repository)}: {target}"
        for page in _pages(repository)
        for target in LINK.findall(_read(page))
        if "://" not in target and not (page.parent / target.partition("#")[0]).exists()
    ]
    assert not dead


def test_the_lines_of_python_in_the_readme_run(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = textwrap.dedent(
        re.search(r"In Python:\n\n(.*?)\n\n#", _read(repository / "README.md"), re.S)[1]
    )
    write_studies(tmp_path, frames=2, size=(48, 64), video=False)
    study = next(path for path in (tmp_path / "studies").iterdir() if path.stem == "endoscopy")
    exec(code.replace("STUDY", str(study)), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["0", "1"]


def test_every_page_is_in_the_index(repository: Path) -> None:
    index = _read(repository / "docs" / "index.md")
    for page in (repository / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index


def test_bundle_commands_name_configurations_and_keys_that_exist(repository: Path) -> None:
    checked = 0
    for page in _pages(repository):
        base = repository / "monai_bundle" if "monai_bundle" in page.parts else repository
        for line in _snippets(page):
            if "monai.bundle run" not in line:
                continue
            words = shlex.split(line)
            words = words[words.index("monai.bundle") + 1 :]
            options = dict(zip(words[2::2], words[3::2], strict=True))
            files = yaml.safe_load(options.pop("--config_file"))
            keys: dict[str, object] = {}
            for file in [files] if isinstance(files, str) else files:
                keys |= yaml.safe_load(_read(base / file))
            assert words[1] in keys
            assert {option.removeprefix("--") for option in options} <= set(keys)
            checked += 1
    assert checked >= 6


def test_commands_of_ours_in_the_documents_exist(repository: Path) -> None:
    named = {
        name
        for page in _pages(repository)
        for name in re.findall(r"\bsam2unet ([a-z]+)", _read(page))
    }
    assert named <= set(COMMANDS)


def test_options_of_our_commands_in_the_documents_exist(repository: Path) -> None:
    commands = typer.main.get_command(app).commands
    checked = 0
    for line in (line for page in _pages(repository) for line in _snippets(page)):
        if not line.startswith("sam2unet ") or line.startswith("sam2unet train"):
            continue  # train passes what it does not know on to the bundle
        words = shlex.split(line, comments=True)
        command = commands[words[1]]
        command = getattr(command, "commands", {}).get(words[2] if words[2:] else "", command)
        known = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known, line
        checked += len(used)
    assert checked >= 10


def test_table_of_tasks_says_what_the_files_say(repository: Path) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| (\d+) x (\d+) \| ([^|]+) \| *(yes)? *\|$",
        _read(repository / "docs" / "tasks.md"),
        re.MULTILINE,
    )
    assert {row[0] for row in rows} == set(presets())
    for name, classes, height, width, modalities, paper in rows:
        task = load_preset(name)
        assert classes.split(", ") == [item.label.lower() for item in task.classes]
        assert (int(height), int(width)) == task.image_size
        assert tuple(modalities.split(", ")) == task.accepts.modalities
        assert bool(paper) == bool(task.paper)


def test_networks_that_the_documents_name_exist() -> None:
    assert {"starter", "nano", "large"} <= set(VARIANTS)


def test_constraints_pin_every_direct_requirement_within_its_range(repository: Path) -> None:
    pins = {
        canonicalize_name(name): Version(version)
        for name, version in re.findall(
            r"^([\w.-]+)==(\S+)$", _read(repository / "constraints.txt"), re.MULTILINE
        )
    }
    project = tomllib.loads(_read(repository / "pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(line) for line in project["dependencies"] + extras["dev"]]
    while own := next((item for item in wanted if item.name == project["name"]), None):
        wanted.remove(own)
        wanted += [Requirement(line) for extra in own.extras for line in extras[extra]]
    unmet = [str(r) for r in wanted if pins.get(canonicalize_name(r.name)) not in r.specifier]
    assert not unmet
    assert pins["torch"] == Version("2.13.0")


def test_every_line_of_the_constraints_is_a_pin_without_a_build_tag(repository: Path) -> None:
    for line in _read(repository / "constraints.txt").splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\d.]+((rc|b|\.?post)\d+)?", line), line


def test_pictures_are_what_their_script_draws(repository: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(repository / "docs" / "make_images.py"))
    script["main"](tmp_path)
    for path in tmp_path.iterdir():
        with Image.open(path) as drawn, Image.open(repository / "docs/images" / path.name) as kept:
            assert drawn.size == kept.size
            difference = np.asarray(drawn).astype(int) - np.asarray(kept).astype(int)
        assert np.abs(difference).mean() < 2  # JPEG encoders differ a little
    kept_names = {path.name for path in (repository / "docs" / "images").iterdir()}
    of_other_scripts = {"architecture.png", "layers.svg"}
    assert kept_names == {path.name for path in tmp_path.iterdir()} | of_other_scripts


def test_picture_of_the_layers_shows_the_contract(repository: Path) -> None:
    script = runpy.run_path(str(repository / "docs" / "make_layers.py"))
    drawn = script["draw"](repository / "pyproject.toml")
    assert drawn == _read(repository / "docs" / "images" / "layers.svg")


def test_picture_of_the_layers_follows_a_changed_contract(tmp_path: Path, repository: Path) -> None:
    script = runpy.run_path(str(repository / "docs" / "make_layers.py"))
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        "[tool.importlinter]\nroot_package = 'p'\n"
        "[[tool.importlinter.contracts]]\nname = 'L'\ntype = 'layers'\n"
        "layers = ['p.high', '(p.low) | p.side']\n"
        "[[tool.importlinter.contracts]]\nname = 'F'\ntype = 'forbidden'\n"
        "source_modules = ['p.low']\nforbidden_modules = ['torch', 'monai']\n"
    )
    drawn = ElementTree.fromstring(script["draw"](pyproject))
    svg = "{http://www.w3.org/2000/svg}"
    texts = {text.text: float(text.get("y", 0)) for text in drawn.iter(f"{svg}text")}
    assert texts["high"] < texts["low"] == texts["side"]
    dashes = [box.get("stroke-dasharray") for box in drawn.iter(f"{svg}rect")]
    assert [dash for dash in dashes if dash] == ["none", "5 4"]
    _, high, _, low, side = [box.get("fill") for box in drawn.iter(f"{svg}rect")][1:6]
    assert high == side != low


def test_citation_names_this_version_and_the_paper(repository: Path) -> None:
    citation = yaml.safe_load(_read(repository / "CITATION.cff"))
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2408.08870"
    assert len(paper["authors"]) == 9


def test_changelog_has_a_place_for_the_next_change(repository: Path) -> None:
    assert "## [Unreleased]" in _read(repository / "CHANGELOG.md")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/tasks.md"])
def test_documents_end_with_one_newline_and_have_no_trailing_blanks(
    repository: Path, name: str
) -> None:
    text = _read(repository / name)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert not re.search(r"[ \t]+$", text, re.MULTILINE)


def _pages(repository: Path) -> list[Path]:
    top = [repository / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    docs = [*(repository / "docs").glob("*.md"), *(repository / "docs" / "notes").glob("*.md")]
    return [*top, *docs, repository / "monai_bundle/docs/README.md"]


def _snippets(page: Path) -> list[str]:
    """Return the command lines of a page: indented by four, or within a fence."""
    lines, fenced = [], False
    for line in _read(page).splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip())
    return lines


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_closed_lists_of_the_manifest_stand_in_the_batch_page(repository: Path) -> None:
    page = _read(repository / "docs" / "batch.md")
    table = page.partition("| warning | what it says |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == sorted(WARNINGS)
    (reasons,) = [line for line in page.splitlines() if line.startswith("| `reason` |")]
    assert set(re.findall(r"`(\w+)`", reasons)) - {"reason"} == set(Reason)


def test_the_batch_page_describes_each_output_format_as_the_code_does(repository: Path) -> None:
    page = _read(repository / "docs" / "batch.md")
    table = page.partition("| `--format` | what it is |")[2].partition("\n\n")[0]
    described = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE))
    assert described == {name: each.help for name, each in FORMATS.items()}


def test_the_performance_page_describes_each_runtime_as_the_code_does(repository: Path) -> None:
    page = _read(repository / "docs" / "performance.md")
    table = page.partition("| runtime | what it is |")[2].partition("\n\n")[0]
    described = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE))
    assert described == {name: each.help for name, each in RUNTIMES.items()}
