import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml

from sam2unet_core.monai_parts import bundled_trunk


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save({"model": {}}, folder / "sam2_hiera_large.pt")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_large_files_are_downloaded_to_where_training_looks_for_them(
    server, own_bundle, tmp_path, run_verb
):
    folder, address = server
    bundle = tmp_path / "bundle"
    shutil.copytree(own_bundle, bundle)
    content = yaml.safe_load((bundle / "large_files.yml").read_text())
    (entry,) = content["large_files"]
    assert entry["url"].startswith("https://dl.fbaipublicfiles.com/segment_anything_2/")
    assert bundled_trunk(str(bundle), "large") is None
    entry["url"] = f"{address}/sam2_hiera_large.pt"
    (bundle / "large_files.yml").write_text(yaml.safe_dump(content))
    for cwd, options in ((tmp_path, {"bundle_path": bundle}), (bundle, {})):
        done = run_verb("download_large_files", cwd=cwd, **options)
        assert done.returncode == 0, done.stderr
        found = bundle / "models" / "sam2_hiera_large.pt"
        assert found.read_bytes() == (folder / found.name).read_bytes()
        assert bundled_trunk(str(bundle), "large") == str(found)
        found.unlink()
