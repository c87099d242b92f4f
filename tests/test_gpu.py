"""The script for a GPU runs its small shape without one; a part that fails is told, and the others go on."""

import json
import sys

import pytest

from benchmarks import gpu


@pytest.fixture
def measured(tmp_path, monkeypatch):
    def call(*options):
        out = tmp_path / "gpu.json"
        command = ["gpu.py", "--shape", "small", "--device", "cpu", "--no-study", "--out", str(out), *options]
        monkeypatch.setattr(sys, "argv", command)
        return gpu.main(), json.loads(out.read_text())
    return call


def test_the_small_shape_runs_on_a_cpu(measured):
    code, found = measured()
    assert code == 0, found
    assert found["step"]["tokens a step"] > 50 and found["step"]["the loss falls"]
    assert 0 < found["step"]["share of the matmul rate"] < 1
    assert found["generation"]["new tokens"] == 4 * 6
    assert found["merging"]["largest difference"] == 0 and found["merging"]["weights"] == found["products"]["weights"]
    assert 0 < found["parity"]["bfloat16 to float32"] < gpu.TOLERANCES["bfloat16 to float32"]
    assert all(found[part]["peak GiB"] > 0 for part in gpu.PARTS if part != "study")


def test_a_part_that_fails_or_has_no_time_is_told(measured, monkeypatch):
    def broken(bench):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "PARTS", {"step": broken, "matmul": gpu.matmul})
    code, found = measured()
    assert code == 1 and found["step"]["failed"] == "RuntimeError: out of memory" and "failed" not in found["matmul"]
    assert measured("--limit", "0")[1]["matmul"] == {"left out": "no time left"}
