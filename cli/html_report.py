"""Parts that the HTML reports of parity and benchmarks share: style, a box that filters rows, inline plots."""

import io
from collections.abc import Mapping
from html import escape
from importlib import import_module
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.verdict { padding: .6rem 1rem; border-left: .4rem solid #2a8f4b; background: #2a8f4b1a; }
p.failed { border-color: #c0392b; background: #c0392b1a; }
p.unknown { border-color: #b7791f; border-left-style: dashed; background: #b7791f1a; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .15rem .7rem .15rem 0; border-bottom: 1px solid #8883; vertical-align: top; }
td.n, th.n { text-align: right; } tr.failed td { background: #c0392b1a; }
tr.unknown td { background: #b7791f1a; }
.wide { overflow-x: auto; }
svg { max-width: 100%; min-width: 42rem; height: auto; background: white; }
input { font: inherit; width: 22rem; max-width: 100%; box-sizing: border-box; padding: .2rem .4rem; }
table.about td { overflow-wrap: anywhere; }
"""

SCRIPT = """
const box = document.getElementById("filter");
box.addEventListener("input", () => {
  const wanted = box.value.toLowerCase();
  for (const row of document.querySelectorAll("tbody.cases tr"))
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
"""


def require_matplotlib(option: str) -> None:
    """Raise `ValueError` for an option that draws if matplotlib is missing."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise ValueError(
            f"{option} draws with matplotlib, which is not installed: pip install 'matplotlib>=3.8'"
        ) from error


def verdict(text: str, kind: str = "") -> str:
    """A line in a green box; in a red one if ``kind`` is "failed", in an amber one if it is "unknown" (not run)."""
    return f'<p class="verdict {kind}">{escape(text)}</p>'


def about(machine: Mapping[str, Any]) -> str:
    """A table of the machine: names and values, those without a value left out."""
    rows = (f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in machine.items() if value)
    return f'<table class="about">{"".join(rows)}</table>'


def wide(content: str) -> str:
    """Content that scrolls sideways by itself where it is wider than the page, as on a phone; keys reach it too."""
    return f'<div class="wide" tabindex="0">{content}</div>'


def svg(figure: Any, description: str) -> str:
    """A matplotlib figure as an SVG element, with a description for those who can't see it."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    element = text.getvalue().partition("<svg")[2]
    return wide(f'<svg role="img" aria-label="{escape(description)}"{element}')
