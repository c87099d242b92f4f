"""Write README.md from nbs/index.ipynb, and before that the notebook's tables (`make readme`).

A table (what there is, with links to papers; what the committed runs found) stands in a Markdown cell between
`<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
from pathlib import Path

import yaml
from nbconvert import MarkdownExporter

from unlearn_nb.core import paper
from unlearn_nb.metrics import glossary

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = yaml.safe_load((ROOT / "tools" / "tables.yaml").read_text(encoding="utf-8"))


def linked(key: str) -> str:
    """A paper with a link; one without an address with its title."""
    one = paper(key)
    return f"[{one.cited}]({one.url})" if one.url else f"{one.cited}, *{one.title}*"


def of_kind(kind: str) -> str:
    """Name, what it is, papers."""
    lines = [f"| {kind.rstrip('s')} | what it is | paper |", "|---|---|---|"]
    for name, (what, keys) in ENTRIES[kind].items():
        lines.append(f"| `{name}` | {what} | {', '.join(map(linked, keys))} |")
    return "\n".join(lines)


def metrics() -> str:
    """The metrics that come from a paper: name, range, which way is good, paper."""
    lines = ["| metric | name | range | better | paper |", "|---|---|---|---|---|"]
    for entry in glossary().values():
        if entry.paper and entry.better:
            lines.append(f"| `{entry.short}` | {entry.name} | {entry.range} | {entry.better} | {linked(entry.paper)} |")
    return "\n".join(lines)


def _found(study: str) -> tuple[dict, str]:
    """Metrics of the first committed run of a study, and where its report is."""
    file = sorted((ROOT / "reports" / study).glob("*/metrics.json"))[0]
    return json.loads(file.read_text(encoding="utf-8")), f"`reports/{study}/{file.parent.name}/`"


def _mean(runs: dict, model: str, metric: str) -> float:
    """Mean over seeds of a model's metric."""
    values = [scores[model][metric] for scores in runs.values()]
    return sum(values) / len(values)


def results() -> str:
    """Forgotten, retained, collateral of the committed runs: the oracle, the method, what it is compared with."""
    lines = ["| study | model | forgotten | retained | collateral | run |", "|---|---|---|---|---|---|"]
    merging, place = _found("merging")
    for model in ("oracle", "over", "under", "merged"):
        gone, kept, others = (_mean(merging["test"], model, f"{split}_knowledge")
                              for split in ("forget", "retain", "collateral"))
        lines.append(f"| `merging` | {model} | {1 - gone:.2f} | {kept:.2f} | {others:.2f} | {place} |")
    relearn, place = _found("relearn")
    for model in ("oracle", "relearn", "npo-gdr", "ga-gdr"):
        gone, kept = (_mean(relearn["test"], model, metric) for metric in ("forget/kfr", "retain/krr"))
        lines.append(f"| `relearn` | {model} | {gone:.2f} | {kept:.2f} | | {place} |")
    return "\n".join(lines)


TABLES = {"results": results, "metrics": metrics, **{kind: lambda kind=kind: of_kind(kind) for kind in ENTRIES}}


def rewritten(text: str) -> str:
    """The text with every marked table as it should be."""
    def table(found: re.Match) -> str:
        return f"<!-- table: {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", table, text, flags=re.S)


def main(root: Path = ROOT) -> None:
    """Both files, anew."""
    path = root / "nbs" / "index.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = rewritten("".join(cell["source"])).splitlines(keepends=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    text, _ = MarkdownExporter().from_filename(str(path))
    readme = text.replace("](images/", "](nbs/images/").rstrip("\n") + "\n"  # seen from another folder
    (root / "README.md").write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
