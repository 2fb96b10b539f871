"""Sphinx settings: `pip install ".[docs]"`, then `sphinx-build docs docs/_build`."""

project = "SAM2-UNet for clinical research"
author = "The SAM2-UNet bundle contributors"
extensions = ["myst_parser"]
html_theme = "furo"
exclude_patterns = ["_build", "notes"]
