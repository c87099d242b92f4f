"""Negation and PerTA: against dense formulas with gradients by plain loops, on both places where a result may stand."""

import pytest
import torch
from adapter_toys import dense, relative, write_adapter
from localizing import double, row_gradients
from toys import FORGET, RETAIN, SIZES, make_tokenizer, small, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import PerTA, merge_adapters, merge_into, negate, negmerge, perta, perta_share
from unlearn_nb.models import read_adapter

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("negation")
    return [write_adapter(folder / f"a{seed}", seed, model=tiny(), r=3) for seed in (1, 2)]


@pytest.fixture(scope="module")
def method():
    return perta(double(), make_tokenizer(), FORGET[:3], retain=RETAIN[:3], alpha=2.0)


@pytest.fixture(scope="module")
def loops():
    """The gradient of each row, weight by weight, of two kinds of rows: name -> [rows, out, in]."""
    names = [name for name, weight in tiny().named_parameters() if weight.dim() == 2 and ".layers." in name]
    rows = [row_gradients(double(), data[:3], names) for data in (FORGET, RETAIN)]
    return [{name: torch.stack([row[name] for row in kind]) for name in names} for kind in rows]


@pytest.mark.parametrize("measure", ["gradient", "fisher"])
def test_the_shares_are_the_formula(measure, loops):
    """F is the size of the mean gradient, or the mean square of the rows' gradients."""
    given = double(), make_tokenizer(), FORGET[:3]
    options = dict(retain=RETAIN[:3], measure=measure, alpha=2.0, epsilon=0.1)
    found = perta(*given, **options)
    matter = (lambda rows: rows.mean(0).abs()) if measure == "gradient" else (lambda rows: rows.square().mean(0))
    parts = {name: (matter(loops[0][name]), 2 * matter(loops[1][name])) for name in loops[0]}
    floor = 0.1 * float(torch.cat([(one + other).flatten() for one, other in parts.values()]).mean())
    assert sorted(found.shares) == sorted(name.removesuffix(".weight") for name in parts)
    for name, (one, other) in parts.items():
        wanted = one / (one + other + floor)
        assert relative(found.shares[name.removesuffix(".weight")].double(), wanted) < 1e-4
    absolute = perta(*given, **options, relative=False)
    assert relative(absolute.shares[name.removesuffix(".weight")].double(), one / (one + other + 0.1)) < 1e-4


def test_perta_subtracts_each_entry_times_its_share(two, method):
    merged = negate(two[0], strength=1.5, method=method, rank="dense")
    for module in merged.modules:
        wanted = -1.5 * method.shares[module].double() * dense(two[0], module)
        assert relative(dense(merged, module), wanted) < 1e-5
    rest = negate(two[0], strength=1.5, method=method, rank="dense", replaces=True)
    module = merged.modules[0]
    assert relative(dense(rest, module), dense(two[0], module) + dense(merged, module)) < 1e-5
    assert negate(two[0], method=method).error <= 0.05  # the rank follows the tolerance


def test_the_model_with_it_has_the_weights_of_the_formula(two, method, tmp_path):
    """theta - lambda * w * tau, read back from the folder that peft loads."""
    negate(two[0], tmp_path / "out", strength=0.7, method=method, rank="dense")
    before, after = tiny().requires_grad_(False), merge_into(tiny().requires_grad_(False), tmp_path / "out")
    name = "model.layers.1.mlp.down_proj"
    wanted = before.get_submodule(name).weight.double() - 0.7 * method.shares[name].double() * dense(two[0], name)
    assert relative(after.get_submodule(name).weight.double(), wanted) < 1e-6
    assert '"method": "perta(measure=gradient, alpha=2)"' in (tmp_path / "out" / "merge.json").read_text()


def test_plain_negation_is_exact(two):
    module = read_adapter(two[0]).modules[0]
    one, other = dense(two[0], module), dense(two[1], module)
    assert relative(dense(negate(two[0], strength=2), module), -2 * one) < 1e-5
    both = negate(two, strength=2, weights=[1, 3])
    assert relative(dense(both, module), -2 * (one + 3 * other) / 4) < 1e-5 and both.error < 1e-5
    assert relative(dense(negate(two[0], strength=0.25, replaces=True), module), 0.75 * one) < 1e-5
    gone = negate(two[0], replaces=True)  # all of what was learnt
    assert gone.norm == 0


def test_negmerge_is_a_method_of_it(two):
    module = read_adapter(two[0]).modules[0]
    stack = torch.stack([dense(path, module) for path in two])
    agreed = negmerge(stack, torch.tensor([0.5, 0.5], dtype=torch.float64))
    found = negate(two, strength=3, method="negmerge", rank="dense")
    assert relative(dense(found, module), -3 * agreed) < 1e-5
    same = merge_adapters(two, method="negmerge", space="delta", scale=-3.0, rank="dense")
    assert relative(dense(found, module), dense(same, module)) < 1e-6
    rest = negate(two, strength=3, method="negmerge", rank="dense", replaces=True)
    assert relative(dense(rest, module), stack.mean(0) - 3 * agreed) < 1e-5


def test_layers_that_store_inputs_first_are_turned():
    model = small("gpt2", **SIZES)
    found = perta(model, make_tokenizer(), FORGET[:2], retain=RETAIN[:2])
    for module, share in found.shares.items():
        assert share.shape == model.get_submodule(module).weight.shape[::-1]  # Conv1D: [in, out]


def test_a_weight_that_nothing_needs_stays():
    assert perta_share(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.0])).tolist() == [0, 1]


def test_what_does_not_fit_is_refused(two, method):
    with pytest.raises(UnlearnError, match="merges whole updates"):
        merge_adapters(two[0], method=method)
    with pytest.raises(UnlearnError, match="no share for the weights of model.layers.0"):
        negate(two[0], method=PerTA({}))
    with pytest.raises(UnlearnError, match="take them from the model that the adapter belongs to"):
        negate(two[0], method=PerTA(dict.fromkeys(method.shares, torch.ones(2, 2))))
    with pytest.raises(UnlearnError, match="alpha and epsilon are numbers of at least 0"):
        perta(tiny(), make_tokenizer(), FORGET, retain=RETAIN, alpha=-1)
