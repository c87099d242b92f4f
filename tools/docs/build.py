"""Write the documentation into `_docs/site`: the notebooks in reading order, and pages of the library (`make docs`).

The site works without a network, also from files; a dead link or something that would be fetched from elsewhere fails.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import page_of

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "_docs"
GUIDES = ("tutorials/forget_my_rows", "tutorials/my_own_method", "tutorials/read_a_report",
          "tutorials/laptop_to_cluster", "extending")
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
    listed = [{title_of(ROOT / "nbs" / f"{name}.ipynb"): f"{name}.md"} for name in GUIDES]
    studies = sorted((ROOT / "nbs" / "studies").glob("*.ipynb"))
    studied = [{title_of(path): f"studies/{path.stem}.md"} for path in studies]
    books: list[Page] = []
    for folder in packages():
        pages = [{title_of(path): f"{folder.name}/{path.stem}.md"} for path in sorted(folder.glob("[0-9]*.ipynb"))]
        books.append({folder.name.replace("_", " ", 1): pages})
    books += [{title_of(path): f"{path.stem}.md"} for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))]
    library = [{folder.name.partition("_")[2]: f"library/{folder.name.partition('_')[2]}.md"} for folder in packages()]
    return [{"Start": ["index.md", *listed, {"Glossary": "glossary.md"}]}, {"Studies": studied},
            {"Notebooks": books}, {"Library": library}, {"Changes": "CHANGELOG.md"},
            {"Contributing": "CONTRIBUTING.md"}]


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
        new = (target / path.relative_to(ROOT / "nbs")).with_suffix(".md")
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(page_of(path, new.parent), encoding="utf-8")
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
    for name in ("iframe-worker.js", "pages.css"):
        shutil.copyfile(Path(__file__).with_name(name), target / "assets" / name)


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


def check_links(site: Path) -> None:
    """End the build where a link is dead."""
    if dead := dead_links(site):
        sys.exit("\n".join([f"{len(dead)} links of the documentation are dead:", *dead[:50]]))


def make_site(place: Path) -> None:
    """Let mkdocs build the site in a folder; what it warns of (a link without its end, a page in no list) fails."""
    # not --quiet: it silences warnings, and those that nobody hears do not count as such
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(place / "mkdocs.yml")]
    done = subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, encoding="utf-8",
                          errors="replace", stderr=subprocess.PIPE)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.startswith(("INFO", "DEBUG"))]
        sys.exit("\n".join([*said[:50], "the documentation can't be built: see above"]))


def main() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    write_sources(PLACE / "source")
    config = yaml.safe_load(Path(__file__).with_name("mkdocs.yaml").read_text(encoding="utf-8"))
    config |= {"docs_dir": "source", "site_dir": "site", "nav": navigation()}
    config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    (PLACE / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    make_site(PLACE)
    (PLACE / "site" / "404.html").unlink(missing_ok=True)  # for servers only: it links from the root of a host
    check_links(PLACE / "site")
    print(PLACE / "site" / "index.html")


if __name__ == "__main__":
    main()
