"""Two processes under FSDP2 do what one does, and give the model back whole."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from forked import run_as_two_processes
from safetensors.torch import load_file
from toys import make_tokenizer, run, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.regions import Region
from unlearn_nb.unlearning import accelerate_file, sharding, world

CASES = {
    "npo+kl": dict(snapshots=[2]),
    "full": dict(method="full", lr=2e-3, steps=2),
    "rmu": dict(objective="rmu(layer=0) + 0.5*nll", steps=None, epochs=1.4),
    "bfloat16": dict(dtype="bfloat16", lr=2e-3, steps=2),
    "region": dict(method="full", lr=2e-3, steps=2, region=True),
}

SCRIPT = """
import json, os, pathlib, sys
import torch, toys as t
from unlearn_nb.regions import Region
for name, value in {'ACCELERATE_USE_FSDP': 'true', 'FSDP_VERSION': '2', 'ACCELERATE_MIXED_PRECISION': 'fp16'}.items():
    os.environ[name] = value
from unlearn_nb.core import UnlearnError
from unlearn_nb.models import Shards, is_sharded
free, split = Shards.free, []
Shards.free = lambda self: split.append(is_sharded(self.model)) or free(self)
folder, cases = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
for name, changes in cases.items():
    model = t.tiny(tied=name == 'full')
    before, kind = t.state(model), type(model)
    seen = []
    split.clear()
    def on_step(step, live):
        live(input_ids=torch.tensor([[1, 2, 3]]))
        seen.append(is_sharded(live))
    region = Region.random(model, 0.25, seed=1) if changes.pop('region', False) else None
    t.run(model, t.make_tokenizer(), folder / name, batch_size=4, region=region, on_step=on_step, **changes)
    assert seen and not any(seen) and len(split) > len(seen) and all(split)
    assert not is_sharded(model) and type(model) is kind
    assert changes.get('method') == 'full' or t.same(before, t.state(model))
    if region is not None:
        region.check_outside(t.tiny(), model)
try:
    t.run(t.tiny(), t.make_tokenizer(), folder / 'mask', method='full', mask='sure')
except UnlearnError as error:
    assert 'which FSDP2 splits up' in str(error)
else:
    raise AssertionError
assert os.environ['ACCELERATE_MIXED_PRECISION'] == 'fp16' and 'FSDP_CPU_RAM_EFFICIENT_LOADING' not in os.environ
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A folder with what one process and what two have written."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "two.py").write_text(SCRIPT)
    run_as_two_processes(folder / "two.py", folder / "two", json.dumps(CASES))
    for name, changes in CASES.items():
        changes, model = dict(changes), tiny(tied=name == "full")
        region = Region.random(model, 0.25, seed=1) if changes.pop("region", False) else None
        run(model, make_tokenizer(), folder / "one" / name, batch_size=8, region=region, **changes)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_parts_of_the_weights_do_what_one_does(both, name):
    one, two = (pd.read_csv(both / which / name / "history.csv").drop(columns="seconds") for which in ("one", "two"))
    exact = dict(rtol=1e-4, atol=1e-6) if name != "bfloat16" else dict(rtol=1e-2, atol=1e-3)
    pd.testing.assert_frame_equal(one, two, **exact)
    assert len(one) > 1 and one["loss"].nunique() == len(one)
    files = [file.relative_to(both / "one") for file in (both / "one" / name).rglob("*model.safetensors")]
    assert len(files) == 1 + len(CASES[name].get("snapshots", ()))
    for file in files:
        a, b = load_file(both / "one" / file), load_file(both / "two" / file)
        assert a.keys() == b.keys()
        if name != "bfloat16":  # Adam turns noise of a gradient near 0 into whole steps
            assert all(float((a[key] - b[key]).abs().mean()) < 2e-4 for key in a)


@pytest.mark.parametrize("name, wanted", [("ddp", None), ("fsdp2", {"version": 2, "reshard_after_forward": "true"})])
def test_accelerate_launch_takes_the_files(tmp_path, monkeypatch, name, wanted):
    (tmp_path / "look.py").write_text("import json, os\nopen('environ' + os.environ['RANK'], 'w').write("
                                      "json.dumps(dict(os.environ)))\n")
    subprocess.run([sys.executable, "-m", "accelerate.commands.launch", "--config_file", accelerate_file(name),
                    "--main_process_port", "0", "look.py"], check=True, timeout=300, cwd=tmp_path)
    for rank in range(2):
        for key, value in json.loads((tmp_path / f"environ{rank}").read_text()).items():
            monkeypatch.setenv(key, value)
        assert world() == (rank, 2) and sharding() == wanted


@pytest.mark.parametrize("key, value", [("FSDP_VERSION", "1"), ("FSDP_OFFLOAD_PARAMS", "true"),
                                        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true"),
                                        ("FSDP_ACTIVATION_CHECKPOINTING", "True")])
def test_what_cannot_be_had_sharded_is_refused(monkeypatch, key, value):
    torchrun = dict(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="a", MASTER_PORT="1")
    for name, said in (torchrun | {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", key: value}).items():
        monkeypatch.setenv(name, said)
    with pytest.raises(UnlearnError, match=f"{key} is {value.lower()} in the environment: set {key.lower()} to"):
        sharding()
