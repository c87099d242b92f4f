"""What texts of the project link to, and what of it is dead: in Markdown, in notebooks, and in HTML pages."""

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

_FENCED = re.compile(r"^ *(```|~~~).*?^ *\1", re.M | re.S)
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.S)
_INLINE = re.compile(r"\]\(<?([^\s)<>]*(?:\([^\s)]*\)[^\s)<>]*)*)>?(?:\s+\"[^\"]*\")?\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.M)
_HTML = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)\s*=\s*[\"']([^\"']*)[\"']", re.I)
_BARE = re.compile(r"(?<![(\[\"'<=])\bhttps?://[^\s<>()\"'`|]+(?<![.,;:])")
_HEADING = re.compile(r"^#{1,6} +(.+?)[ #]*$", re.M)
_OUTSIDE = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?(/[^\s<>\"|\\^`{}]*)?(\?\S+)?(#\S+)?", re.I)


def text_of(path: Path) -> str:
    """The Markdown of a file; of a notebook that of its cells, without outputs."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def links_in(text: str) -> list[str]:
    """The addresses in a Markdown text, in no order: links, pictures, references, HTML, bare ones; code has none."""
    bare = _CODE.sub("", _FENCED.sub("", text))
    return [found for pattern in (_INLINE, _REFERENCE, _HTML, _BARE) for found in
            (match.group(match.lastindex or 0) for match in pattern.finditer(bare))]


def anchor_of(heading: str) -> str:
    """The place of a heading, as GitHub names it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


@cache
def places_of(path: Path) -> frozenset[str]:
    """Where on a page a link may lead."""
    if path.suffix == ".html":
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        return frozenset(tag.get("id") or tag.get("name") for tag in soup.find_all(["a", True])
                         if tag.get("id") or tag.name == "a" and tag.get("name"))
    headings, seen, places = _HEADING.findall(_FENCED.sub("", text_of(path))), {}, set()
    for place in map(anchor_of, headings):
        places.add(f"{place}-{seen[place]}" if place in seen else place)
        seen[place] = seen.get(place, 0) + 1
    lab = {heading.strip().replace(" ", "-") for heading in headings}  # how Jupyter names them
    return frozenset(places | (lab if path.suffix == ".ipynb" else set()))


def wrong_with(link: str, page: Path) -> str:
    """What is wrong with a link on a page, in words; nothing where nothing is. No address is asked for."""
    parts = urlsplit(link)
    if parts.scheme in ("data", "mailto"):
        return ""
    if parts.scheme or parts.netloc:
        return "" if _OUTSIDE.fullmatch(link) else "is no address of the form https://host/path"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not link or not target.exists():
        return "is not there"
    knows = not parts.fragment or target.suffix not in (".md", ".ipynb", ".html")
    return "" if knows or unquote(parts.fragment) in places_of(target) else "has no such place"


def dead_links(path: Path, root: Path) -> list[str]:
    """The dead links of a Markdown file, a notebook or a page, each with what is wrong."""
    if path.suffix == ".html":
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        links = [tag.get("href", tag.get("src")) for tag in soup.find_all(["a", "img", "script", "link", "iframe"])]
        links = [link for link in links if link is not None]
    else:
        links = links_in(text_of(path))
    where = path.relative_to(root)
    return [f"{where}: {link:.100} {wrong}" for link in links if (wrong := wrong_with(link, path))]
