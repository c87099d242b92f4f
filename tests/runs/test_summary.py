"""A run's summary: what may stand in it, and what is on disk."""

import json

import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.runs import Number, Summary, facts_html, front_html, read_run, read_summary, run_study, write_summary


def test_no_number_that_is_none_goes_unexplained(tmp_path):
    with pytest.raises(UnlearnError, match="why it is not available"):
        Number("forgotten", float("inf"))
    unknown = Number("forgotten", float("nan"), low=0.1, high=0.2, note="the target does not know the rows")
    given = Summary("Fine.", (unknown,))
    text = write_summary(tmp_path, given).read_text()
    assert "NaN" not in text and json.loads(text)["numbers"][0]["value"] is None
    assert read_summary(tmp_path / "summary.json") == given and given.numbers[0].interval == ""


@pytest.mark.parametrize("values", [{"verdict": ""}, {"verdict": "x", "numbers": [3]}, {"verdict": "x", "numbers": 3},
                                    {"verdict": "x", "numbers": [{"name": "n", "value": "many"}]}])
def test_a_damaged_summary_is_refused(values, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(values))
    with pytest.raises(UnlearnError):
        read_summary(tmp_path / "summary.json")


def test_a_failed_run_keeps_no_summary(tmp_path):
    from small_study import write_study
    work = ('from unlearn_nb.runs import Run, Summary\nrun = Run.open(run_dir)\n'
            'run.summarise(Summary("All is well."))\nif fault: 1 / 0\nrun.finish({"x": 1})')
    study = write_study(tmp_path / "told.ipynb", 'fault = ""\nrun_dir = ""', work)
    page = run_study(study, out=tmp_path / "r", run_name="one", progress=False)
    assert read_summary(page.with_name("summary.json")).verdict == "All is well."
    with pytest.raises(UnlearnError):
        run_study(study, {"fault": "yes"}, out=tmp_path / "r", run_name="two", progress=False)
    failed = page.parent.with_name("two")
    assert read_run(failed).state == "failed" and not list(failed.rglob("summary.json"))


def test_what_the_verdict_says_is_not_said_once_more_below_it():
    wrong, more = "The target does not know the forget rows: what depends on it is not available.", "Others are harmed."
    told = Summary(f"{wrong} Ours keeps the rest.", fails=(wrong, more))
    assert told.unsaid == (more,) and told.fails == (wrong, more)
    page = front_html(told)
    assert page.count("does not know the forget rows") == 1 and more in page
    alone = front_html(Summary(wrong, fails=(wrong,)))
    assert "What does not hold" not in alone and "Everything" not in alone
    assert "Everything" in front_html(Summary("Fine."))


def test_a_column_of_values_in_use_stands_only_where_there_are_any():
    about = {"started": "now", "seconds": 1.0, "device": "cpu"}
    assert "value used" not in facts_html({"dtype": "auto"}, about)
    page = facts_html({"dtype": "auto"}, about | {"effective": {"dtype": "float32"}})
    assert "value used" in page and "float32" in page
