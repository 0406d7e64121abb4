"""Check the pages of a built site: ``python docs/extensions/check_site.py site``.

- Each link within the site leads to a page, and to a place that is on it.
- Nothing is loaded from elsewhere: no script, style, font, picture or frame.
- Each picture has an alternative text, but for those in the list of a gallery, beside their titles.

Prints what is wrong and ends with status 1 if anything is.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself, by element and attribute.
LOADED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("img", "srcset"),
    ("source", "src"),
    ("iframe", "src"),
    ("video", "src"),
    ("object", "data"),
}
IN_STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """What a page links to, loads and names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.without_text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect from one element."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img" and not given.get("alt", "").strip() and not given.get("src", "").endswith("_thumb.png"):
            self.without_text.append(given.get("src", ""))
        for name, value in given.items():
            # A link to the next page is not fetched before somebody follows it.
            if (tag, name) in LOADED and not (
                tag == "link" and given.get("rel") in ("next", "prev", "index", "search")
            ):
                parts = value.split(", ") if name == "srcset" else [value]
                self.loaded += [part.split()[0] for part in parts if part.strip()]


def problems(site: Path) -> Iterator[str]:
    """One line for each thing that is wrong."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in pages_of(site)}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        yield from (f"{name}: no alternative text for {source}" for source in page.without_text)
        for url in page.loaded:
            if is_elsewhere(url):
                yield f"{name} loads {url}"
            elif not url.startswith("data:") and not target_of(path, url).exists():
                yield f"{name} loads {url}, which does not exist"
        for url in page.links:
            if is_elsewhere(url) or url.startswith(("mailto:", "javascript:")):
                continue
            target = target_of(path, url)
            if not target.exists():
                yield f"{name} links to {url}, which does not exist"
            elif target in pages and unquote(urlsplit(url).fragment) not in pages[target].anchors:
                yield f"{name} links to {url}, a place that is not on the page"
    for path in sorted(site.rglob("*.css")):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
        for urls in IN_STYLE.findall(text):
            if is_elsewhere("".join(urls)):
                yield f"{path.relative_to(site).as_posix()} loads {''.join(urls)}"


def pages_of(site: Path) -> list[Path]:
    """All pages of a site; templates that a theme leaves among its files are none."""
    return sorted(path for path in site.rglob("*.html") if path.relative_to(site).parts[0] != "_static")


def is_elsewhere(url: str) -> bool:
    """Whether an address names another host."""
    return bool(urlsplit(url).netloc)


def target_of(page: Path, url: str) -> Path:
    """The file to which a link of a page leads."""
    path = unquote(urlsplit(url).path)
    target = (page.parent / path).resolve() if path else page
    return target / "index.html" if target.is_dir() else target


def main(arguments: list[str]) -> int:
    """Print all problems of the site in a folder; the exit status."""
    (folder,) = arguments
    site = Path(folder).resolve()
    count = len(pages_of(site))
    found = list(dict.fromkeys(problems(site)))
    print("\n".join([*found, f"{count} pages, {len(found)} problems"]))
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
