"""The command `sweep`: what it refuses, the job list, and a run that fails."""

import pytest


@pytest.mark.parametrize("text, part", [
    ("", "no grid"),
    ("[1, 2]", "no grid"),
    ("study: smal.ipynb", "does not exist"),
    ("study: small.ipynb\nvary: {sed: [1]}", "did you mean 'seed'"),
    ("study: small.ipynb\nvary: {seed: [one]}", "must be a whole number"),
    ("study: small.ipynb\nvary: {seed: []}", "list of values"),
    ("study: small.ipynb\nvary: 3", "must name parameters"),
    ("study: small.ipynb\nvary: {run_dir: [a]}", "filled by the runner"),
    ("study: small.ipynb\nretries: -1", "from 0"),
    ("study: [", "as YAML"),
])
def test_a_grid_that_is_none_is_one_line(command, place, text, part):
    (place / "bad.yaml").write_text(text)
    before = sorted(place.rglob("*"))
    result = command("sweep", "bad.yaml")
    assert result.exit_code == 1 and part in result.stderr and result.stderr.count("\n") == 1 and not result.stdout
    assert sorted(place.rglob("*")) == before, "nothing may be written"


def test_a_grid_that_is_not_there_and_an_address_that_is_none(command, place):
    assert "can't be read" in command("sweep", "gone.yaml").stderr
    (place / "one.yaml").write_text("study: small.ipynb\nvary: {seed: [2]}\n")
    assert "--on ray" in command("sweep", "one.yaml", "--address", "h:1").stderr


def test_the_job_list_leaves_out_what_is_made(command, place):
    (place / "some.yaml").write_text("study: small.ipynb\nset: {budget: quick, lr: 1e-2}\nvary: {seed: [2, 3]}\n")
    result = command("sweep", "some.yaml", "--print")
    assert result.exit_code == 0 and "1 of 2 runs" in result.stderr, "the first one was made by `unlearn-nb run`"
    line = f"OMP_NUM_THREADS=1 unlearn-nb run {place.resolve() / 'small.ipynb'} --out {place.resolve() / 'reports'}"
    assert result.stdout == f"{line} -p budget quick -p lr 0.01 -p seed 3\n"


def test_a_failed_run_does_not_hold_up_the_others(command, place):
    (place / "faults.yaml").write_text("study: small.ipynb\nset: {budget: full}\nvary: {fault: [refuse, '']}\n"
                                       "retries: 0\nmetric: headline.answer\n")
    result = command("sweep", "faults.yaml")
    assert result.exit_code == 1 and "1 of 2 runs are not complete" in result.stderr
    page = place / "reports" / "sweeps" / "faults" / "index.html"
    assert "the forget set is empty; give rows" in page.read_text() and str(page.relative_to(place)) in result.stdout
    assert "1 of 2 runs of small are complete" in page.read_text()
