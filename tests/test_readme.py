"""The README tells of everything that is chosen by name, with its paper, and none of its links is dead."""

import re
from pathlib import Path

import pytest
import yaml

from unlearn_nb.attacks import ATTACKS
from unlearn_nb.core import papers
from unlearn_nb.influence import SOLVERS
from unlearn_nb.localization import LOCALIZERS
from unlearn_nb.merging import MERGE_METHODS
from unlearn_nb.metrics import SUITES, glossary
from unlearn_nb.objectives import TERMS
from unlearn_nb.regions import MASKS
from unlearn_nb.unlearning import PLANS, STEPS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENTRIES = yaml.safe_load((ROOT / "tools" / "tables.yaml").read_text(encoding="utf-8"))
KNOWN = {"objectives": TERMS, "masks": MASKS, "plans": PLANS, "steps": STEPS, "localizers": LOCALIZERS,
         "solvers": SOLVERS, "suites": SUITES, "merge methods": MERGE_METHODS, "attacks": ATTACKS}


def test_every_kind_of_thing_has_a_table():
    """Nothing is listed that there is not."""
    assert set(ENTRIES) == set(KNOWN)


@pytest.mark.parametrize("kind", KNOWN)
def test_a_table_lists_all_that_there_is_with_papers(kind):
    """What a test or a package registers for itself is no part of the library."""
    assert set(ENTRIES[kind]) == {name for name in KNOWN[kind] if _is_ours(KNOWN[kind], name)}
    for name, (what, keys) in ENTRIES[kind].items():
        assert what and keys and set(keys) <= set(papers()), name
        line = next(line for line in README.splitlines() if line.startswith(f"| `{name}` | {what} |"))
        assert all((papers()[key].url or papers()[key].title) in line for key in keys)


def _is_ours(known, name) -> bool:
    """Whether an entry's code lies in the library."""
    entry = known[name] if not isinstance(known, list) else None
    code = getattr(entry, "__module__", None)
    return code is None or not code.startswith(("test", "__main__"))


def test_every_metric_of_a_paper_is_in_the_table_of_metrics():
    """With a link."""
    for entry in glossary().values():
        if entry.paper and entry.better:
            assert f"| `{entry.short}` | {entry.name} |" in README and f"]({entry.source.url})" in README


def test_no_link_of_the_readme_is_dead():
    """Files and pictures are there, and so are the reports."""
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    assert len(links) > 50
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
    for folder in re.findall(r"`(reports/[^`<]+/)`", README):
        assert (ROOT / folder / "report.html").is_file(), folder
