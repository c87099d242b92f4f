"""`compare`: two runs side by side, and nothing written."""

import shutil

import yaml


def test_two_runs_stand_side_by_side(command, place):
    first = place / "reports" / "small" / "tiny-biographies-quick-s2-lr=0.01"
    second = first.with_name("other")
    shutil.copytree(first, second, dirs_exist_ok=True)
    params = yaml.safe_load((first / "params.yaml").read_text())
    (second / "params.yaml").write_text(yaml.safe_dump(params | {"lr": 0.5}))
    (second / "metrics.json").write_text('{"headline": {"answer": 40}}')
    told = '{"verdict": "It is forty.", "numbers": [{"name": "forgotten", "value": 0.9}]}'
    (second / "summary.json").write_text(told)
    before = {path: path.stat().st_mtime_ns for path in (place / "reports").rglob("*")}
    result = command("compare", first.name, "small/other")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["lr", "0.01", "0.5"] in lines and not [line for line in lines if line[:1] == ["seed"]]
    assert ["headline.answer", "44", "40", "-4"] in lines and "It is forty." in result.stdout
    assert ["summary:", "forgotten", "0.9"] in lines, "one run has no such number"
    assert before == {path: path.stat().st_mtime_ns for path in (place / "reports").rglob("*")}
    shutil.rmtree(second)


def test_an_unknown_run_is_refused_with_a_suggestion(command):
    result = command("compare", "tiny-biographies-quick-s2-lr=0.01", "tiny-biographies-quick-s2-lr=0.1")
    assert result.exit_code == 1 and "lr=0.01" in result.output and "Traceback" not in result.output
