"""Write the documentation into `_docs/site`: the notebooks in reading order, and pages of the library (`make docs`).

The site works without a network, also from files; a dead link or something that would be fetched from elsewhere fails.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "_docs"
GUIDES = ("tutorials/forget_my_rows.ipynb", "tutorials/my_own_method.ipynb", "tutorials/read_a_report.ipynb",
          "extending.ipynb")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.S)
_FENCE_OR_HEADING = re.compile(r"```.*?```|^#+ [^\n]*$", re.S | re.M)
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?=\S)([^$]+?)(?<=\S)\$(?![\d$])", re.S)
Page = dict[str, object]  # title -> source, or a list of such


def title_of(path: Path) -> str:
    """The heading of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    heading = next(line for cell in cells for line in cell["source"] if line.startswith("# "))
    title = heading.lstrip("# ").strip().replace("`", "")
    return title[0].upper() + title[1:]


def packages() -> list[Path]:
    """The numbered folders of notebooks, in reading order."""
    return sorted(path for path in (ROOT / "nbs").glob("[0-9]*") if path.is_dir())


def modules(folder: Path) -> list[str]:
    """The modules that the notebooks of a folder export, in reading order."""
    return [re.sub(r"^\d+_", "", path.stem) for path in sorted(folder.glob("[0-9]*.ipynb"))]


def navigation() -> list[Page]:
    """Guides, studies, notebooks and pages of the library, packages in their order."""
    listed = [{title_of(ROOT / "nbs" / name): name} for name in GUIDES]
    studies = [{title_of(path): f"studies/{path.name}"} for path in sorted((ROOT / "nbs" / "studies").glob("*.ipynb"))]
    books: list[Page] = []
    for folder in packages():
        pages = [{title_of(path): f"{folder.name}/{path.name}"} for path in sorted(folder.glob("[0-9]*.ipynb"))]
        books.append({folder.name.replace("_", " ", 1): pages})
    books += [{title_of(path): path.name} for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))]
    library = [{folder.name.partition("_")[2]: f"library/{folder.name.partition('_')[2]}.md"} for folder in packages()]
    return [{"Start": ["index.ipynb", *listed, {"Glossary": "glossary.md"}]}, {"Studies": studies},
            {"Notebooks": books}, {"Library": library}, {"Changes": "CHANGELOG.md"},
            {"Contributing": "CONTRIBUTING.md"}]


def with_formulas(text: str) -> str:
    """Markdown with formulas as MathML, which browsers draw themselves, and headings as plain text; code stays."""
    def drawn(found: re.Match) -> str:
        source, shown = found[1] or found[2], "block" if found[1] else "inline"
        try:
            return convert(" ".join(source.split()), display=shown)
        except Exception:  # the converter raises many kinds: what it can't read is shown as it was written
            return f"<code>{escape(source)}</code>"

    def named(found: re.Match) -> str:  # as the contents name a heading
        return found[0].replace("`", "") if found[0].startswith("#") else found[0]

    text = _FENCE_OR_HEADING.sub(named, text)
    parts = _CODE.split(text)
    return "".join(part if i % 2 else _MATH.sub(drawn, part) for i, part in enumerate(parts))


def library_page(folder: Path) -> str:
    """The page of a package: what every module offers, from its docstrings."""
    name = folder.name.partition("_")[2]
    parts = [f"::: unlearn_nb.{name}.{module}\n" for module in modules(folder)]
    return f"# unlearn_nb.{name}\n\nSource, shapes, units and errors as the docstrings say them.\n\n" + "\n".join(parts)


def glossary_page() -> str:
    """Every column and metric, with its source."""
    from unlearn_nb.metrics import glossary

    lines = ["# Glossary", "", "What reports and `metrics.json` show.", "",
             "| | name | what | range | better | source |", "|---|---|---|---|---|---|"]
    for entry in glossary().values():
        source = f"[{entry.source.cited}]({entry.source.url})" if entry.source else ""
        where = f"{source} {entry.where}".strip()
        cells = (f"`{entry.short}`", entry.name, entry.what, entry.range, entry.better, where)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def write_sources(target: Path) -> None:
    """Everything that the site is built from."""
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = with_formulas("".join(cell["source"]))
        new = target / path.relative_to(ROOT / "nbs")
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(notebook), encoding="utf-8")
    if (ROOT / "nbs" / "images").is_dir():
        shutil.copytree(ROOT / "nbs" / "images", target / "images")
    (target / "library").mkdir()
    for folder in packages():
        page = target / "library" / f"{folder.name.partition('_')[2]}.md"
        page.write_text(library_page(folder), encoding="utf-8")
    (target / "glossary.md").write_text(glossary_page(), encoding="utf-8")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copyfile(ROOT / name, target / name)
    (target / "assets").mkdir()
    shutil.copyfile(Path(__file__).with_name("iframe-worker.js"), target / "assets" / "iframe-worker.js")


def number_places(site: Path) -> None:
    """Give a heading that stands on a page once more the place that the page's contents link to, `NAME_1`."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for name, number in sorted(set(re.findall(r'href="#([\w-]+)_(\d)"', text))):
            headings = list(re.finditer(f'<h[1-6][^>]*id="({name})"', text))
            if f'id="{name}_{number}"' not in text and len(headings) > int(number):
                start, end = headings[int(number)].span(1)
                text = f"{text[:start]}{name}_{number}{text[end:]}"
        path.write_text(text, encoding="utf-8")


class _Links(HTMLParser):
    """What a page links to (tag, address), and the places that it has."""

    def __init__(self):
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.places = {"__top"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.places |= {given.get("id"), given.get("name") if tag == "a" else None} - {None}
        link = given.get("src") or given.get("href") or ""
        if tag in ("a", "link", "script", "img", "iframe") and link and given.get("rel") != "canonical":
            self.links.append((tag, link))


def _wrong(tag: str, link: str, path: Path, pages: dict[Path, _Links]) -> str:
    """What is wrong with a link on a page; nothing where nothing is."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return "" if tag == "a" or parts.scheme == "data" else f"{tag} is fetched from {link}"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return f"{link} is not there"
    places = pages[target].places if target in pages and parts.fragment else {unquote(parts.fragment)}
    return "" if unquote(parts.fragment) in places else f"{link} has no such place"


def dead_links(site: Path) -> list[str]:
    """Links to pages or places in them that are not there, and whatever would be fetched from elsewhere."""
    pages = {path.resolve(): _Links() for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        page.feed(path.read_text(encoding="utf-8"))
    return [f"{path.relative_to(site.resolve())}: {wrong}" for path, page in pages.items() for tag, link in page.links
            if link != "#" and (wrong := _wrong(tag, link, path, pages))]


def main() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    write_sources(PLACE / "source")
    config = yaml.safe_load(Path(__file__).with_name("mkdocs.yaml").read_text(encoding="utf-8"))
    config |= {"docs_dir": "source", "site_dir": "site", "nav": navigation()}
    config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    (PLACE / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(PLACE / "mkdocs.yml")]
    if subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}).returncode:
        sys.exit("the documentation can't be built: see above")
    (PLACE / "site" / "404.html").unlink(missing_ok=True)  # for servers only: it links from the root of a host
    number_places(PLACE / "site")
    dead = dead_links(PLACE / "site")
    if dead:
        sys.exit("\n".join([f"{len(dead)} links of the documentation are dead:", *dead[:50]]))
    print(PLACE / "site" / "index.html")


if __name__ == "__main__":
    main()
