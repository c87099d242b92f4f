"""Influence scores of one small problem by kronfluence and dattri, as numbers that tests compare ours with.

    python tools/parity.py

It writes tests/influence/parity.json anew; `pip install --no-deps kronfluence==1.0.1 dattri==0.3.0 einops einconv
opt_einsum` first (they are needed for nothing else). A network of two linear layers, 16 training rows, 3 queries; all
numbers of the problem stand in the file. A score is g_query^T (C + damping)^-1 g_train: by kronfluence with C the
EK-FAC of the empirical Fisher matrix, by dattri with DataInf, and with the Hessian of the mean loss, inverted.
"""

import json
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from dattri.algorithm.influence_function import IFAttributorDataInf, IFAttributorExplicit
from dattri.task import AttributionTask
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TARGET = Path(__file__).parent.parent / "tests" / "influence" / "parity.json"
ROWS, QUERIES = 16, 3
DAMPING = {"ekfac": 0.05, "datainf": 0.05, "explicit": 0.5}  # the Hessian has negative eigenvalues
DATTRI = {"datainf": IFAttributorDataInf, "explicit": IFAttributorExplicit}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)).double()


class Classification(Task):
    """The sum of the rows' cross-entropies, with their own labels."""

    def compute_train_loss(self, batch, model, sample=False):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)


def by_kronfluence(model: nn.Module, train: TensorDataset, queries: TensorDataset) -> torch.Tensor:
    """[queries, rows]"""
    with tempfile.TemporaryDirectory() as home:
        analyzer = Analyzer("parity", prepare_model(model, Classification()), Classification(), cpu=True,
                            disable_tqdm=True, output_dir=home)
        kinds = {name: torch.float64 for name in (
            "activation_covariance_dtype", "gradient_covariance_dtype", "eigendecomposition_dtype", "lambda_dtype",
            "per_sample_gradient_dtype")}
        analyzer.fit_all_factors("factors", train, per_device_batch_size=4, factor_args=FactorArguments(
            strategy="ekfac", use_empirical_fisher=True, **kinds))
        analyzer.compute_pairwise_scores(
            "scores", "factors", queries, train, per_device_query_batch_size=3, per_device_train_batch_size=4,
            score_args=ScoreArguments(damping_factor=DAMPING["ekfac"], score_dtype=torch.float64,
                                      per_sample_gradient_dtype=torch.float64, precondition_dtype=torch.float64))
        return analyzer.load_pairwise_scores("scores")["all_modules"]


def by_dattri(name: str, model: nn.Module, train: TensorDataset, queries: TensorDataset) -> torch.Tensor:
    """[queries, rows]"""
    def loss(params, data):
        x, y = data
        return F.cross_entropy(torch.func.functional_call(model, params, (x,)), y)

    task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
    attributor = DATTRI[name](task=task, regularization=DAMPING[name])
    whole, rows = (DataLoader(train, batch_size=size, shuffle=False) for size in (ROWS, 1))
    attributor.cache(rows if name == "datainf" else whole)
    return attributor.attribute(whole, DataLoader(queries, batch_size=QUERIES, shuffle=False)).T


def main() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)  # dattri makes tensors of the default type
    model, x = network(), torch.randn(ROWS + QUERIES, 4, dtype=torch.float64)
    y = torch.randint(3, (ROWS + QUERIES,))
    train, queries = TensorDataset(x[:ROWS], y[:ROWS]), TensorDataset(x[ROWS:], y[ROWS:])
    weights = {name: p.tolist() for name, p in model.named_parameters()}
    found = {**{name: by_dattri(name, model, train, queries) for name in DATTRI},
             "ekfac": by_kronfluence(model, train, queries)}
    record = {"damping": DAMPING, "rows": ROWS, "weights": weights, "x": x.tolist(), "y": y.tolist(),
              "scores": {name: values.double().tolist() for name, values in found.items()},
              "by": {"ekfac": "kronfluence 1.0.1", "datainf": "dattri 0.3.0", "explicit": "dattri 0.3.0"}}
    TARGET.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
