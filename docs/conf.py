"""The site: ``sphinx-build -W -b html docs site`` in a checkout with the extra ``[docs]``, without a network.

What is written by hand is Markdown, for a code host too. The programs of the course are executed, and each picture is
what they drew; the reference is written from the docstrings before Sphinx looks for pages.
"""

import os
import sys
from pathlib import Path

import xpnn as nn

HERE = Path(__file__).parent
if Path(nn.__file__).resolve().parent != HERE.parent.resolve():
    raise ImportError(f"the site is about this checkout, but xpnn is {nn.__file__}: install the checkout, editable")
sys.path.insert(0, str(HERE / "extensions"))

project = "xpnn"
author = "the authors of xpnn"
version = release = nn.__version__
html_title = "xpnn"
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "local_mathjax",
    "source_pages",
    "tree_links",
    "reference_pages",
    "command_page",
    "error_messages",
]
exclude_patterns = ["extensions", "results", "pictures", "static", "course", "sg_execution_times.rst"]
exclude_patterns += ["lessons/sg_execution_times.rst"]
# Names in single backquotes are objects, as docstrings write them. Formulas in docstrings are in no language.
default_role = "py:obj"
highlight_language = "none"
add_module_names = False
toc_object_entries_show_parents = "hide"
numfig = False

autodoc_typehints = "none"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4

mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"chtml": {"mtextInheritFont": True}, "options": {"enableMenu": False}}

os.environ.setdefault("MPLBACKEND", "agg")
sphinx_gallery_conf = {
    "examples_dirs": "course",
    "gallery_dirs": "lessons",
    "filename_pattern": "/plot_",
    # Modules that the programs import are no pages.
    "ignore_pattern": r"(?:^|/)(?!plot_)[^/]*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("xpnn",),
    "reference_url": {"xpnn": None},
    "prefer_full_module": {r"xpnn\..*"},
    "download_all_examples": False,
    "notebook_extensions": set(),
    "capture_repr": (),
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "plot_gallery": True,
    "abort_on_example_error": True,
    "min_reported_time": 1e6,
    "image_srcset": ["2x"],
    "thumbnail_size": (400, 280),
    "matplotlib_animations": (True, "jshtml"),
    "backreferences_dir": None,
}

html_theme = "pydata_sphinx_theme"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_favicon = "static/icon.svg"
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "xpnn"},
    "navigation_with_keys": False,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "default",
    "pygments_dark_style": "github-dark",
    "back_to_top_button": False,
}
html_sidebars = {"index": []}
copyright = "the authors of xpnn, BSD-3-Clause"
