"""What reports show is explained: columns of tables, keys of metrics.json, metrics of suites."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from unlearn_nb.attacks import ATTACKS
from unlearn_nb.experiments import read_traps
from unlearn_nb.influence import SOLVERS
from unlearn_nb.metrics import MIA_ATTACKS, SUITES, explained
from unlearn_nb.objectives import PRESETS, TERMS

REPORTS = Path(__file__).parents[2] / "reports"
RUNS = sorted(REPORTS.glob("*/*/metrics.json"))
NAMES = {*PRESETS, *TERMS, *ATTACKS, *SOLVERS, *read_traps(),  # methods that head a column of their own
         "graddiff", "oraclegrad", "parameter", "stood for", "value used"}  # and the table of parameters



def leaves(tree, path=()):
    """Keys that hold a number, a text or nothing."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key)) if isinstance(value, (dict, list)) else [key]
    else:
        for value in tree:
            if isinstance(value, (dict, list)):
                yield from leaves(value, path)


def bare(head):
    """A column's head, without what is added to a method's name."""
    return re.sub(r"^edit: | after \S+$", "", head)


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.parent.parent.name)
def test_every_key_and_column_of_a_committed_report_has_a_meaning(file):
    """A reader finds each in the glossary; the names of methods are explained where they are chosen."""
    assert not {key for key in leaves(json.loads(file.read_text())) if key not in NAMES and not explained(key)}
    page = BeautifulSoup((file.parent / "report.html").read_text(encoding="utf-8"), "html.parser")
    heads = {" ".join(cell.get_text().split()) for cell in page.select("table thead th")}
    assert len(heads) > 10
    assert not {head for head in heads if head and bare(head) not in NAMES and not explained(bare(head))}


@pytest.mark.parametrize("name", list(SUITES))
def test_the_columns_of_every_suites_rows_have_a_meaning(name):
    """Who opens rows.jsonl finds them in the glossary."""
    assert not [column for column in SUITES[name].numbers if not explained(column)]


def test_every_attack_on_membership_is_explained_in_each_of_its_measures():
    """A path of two parts is explained by its last."""
    for attack in MIA_ATTACKS:
        assert explained(attack).short == attack
        for measure in ("auc", "privleak", "rel_diff"):
            assert explained(f"{attack}/{measure}").short == measure
