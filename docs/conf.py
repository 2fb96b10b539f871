"""Sphinx settings: `pip install ".[docs]"`, then `sphinx-build -n -W docs docs/_build`."""

from sam2unet_core import __version__

project = "SAM2-UNet for clinical research"
author = "The SAM2-UNet bundle contributors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build", "notes"]
add_module_names = False
default_role = "code"  # docstrings write code in single backticks, as Markdown does

autodoc_inherit_docstrings = False  # those of torch and MONAI are theirs
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

nitpicky = True
nitpick_ignore = [("py:class", "Dataset")]  # pydicom's, imported for type checkers only
nitpick_ignore_regex = [
    ("py:class", r"(collections|enum|ignite|monai|numpy|pathlib|rich|torch)\..+"),
    ("py:class", r"sam2unet_core\.inference\..+"),  # not public, but for what docs/api.md names
]
