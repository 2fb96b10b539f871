"""The report in a real browser, on the widths of a desktop and of a phone."""

from __future__ import annotations

import html
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from sam2unet_core.report import render

MEASURE = """
<script>
addEventListener("load", () => {
  const frame = document.querySelector("iframe");
  const page = frame.contentDocument;
  const bar = page.querySelector(".timeline a");
  const out = {};
  out.scroll = page.documentElement.scrollWidth;
  out.images = [...page.images].filter(i => { i.loading = "eager"; return true; }).length;
  out.wide = [...page.querySelectorAll("body *")].filter(
    e => e.getBoundingClientRect().right > frame.clientWidth + 1).length;
  out.target = page.querySelector(bar.getAttribute("href")) ? 1 : 0;
  out.title = page.title;
  out.rows = page.querySelectorAll("tbody tr").length;
  out.decoded = [...page.images].every(i => !i.complete || i.naturalWidth > 0);
  document.body.setAttribute("data-found", JSON.stringify(out));
});
</script>
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    script = runpy.run_path(str(repository / "docs" / "make_report.py"))
    return render(script["sample_page"]())


@pytest.mark.parametrize("width", [1280, 360])
def test_page_fits_its_width_and_the_timeline_leads_to_pictures(chromium, page, tmp_path, width):
    wrapper = tmp_path / "wrapper.html"
    frame = f'<iframe width="{width}" height="800" srcdoc="{html.escape(page)}"></iframe>'
    wrapper.write_text(f'<meta charset="utf-8"><body>{frame}{MEASURE}', encoding="utf-8")
    command = [chromium, "--headless", "--disable-gpu", f"--user-data-dir={tmp_path / 'p'}"]
    if os.geteuid() == 0:
        command.append("--no-sandbox")
    done = subprocess.run(
        [*command, "--window-size=1400,1000", "--dump-dom", wrapper.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    match = re.search(r'data-found="([^"]*)"', done.stdout)
    assert match, done.stdout[-2000:]
    import json

    found = json.loads(html.unescape(match[1]))
    assert found["scroll"] <= width
    assert found["wide"] == 0
    assert found["target"] == 1
    assert found["images"] >= 8
    assert found["decoded"]
    assert found["rows"] == 5
    assert found["title"] == "Colon polyp: segmentation report"


def test_page_needs_nothing_but_itself(page):
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert "@import" not in page
