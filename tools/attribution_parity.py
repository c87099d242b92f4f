"""Pairwise scores of kronfluence and dattri on small networks, as numbers that tests compare ours with.

    pip install kronfluence==1.0.1 dattri==0.3.0
    python tools/attribution_parity.py

writes tests/influence/attribution_parity.json: networks, rows, and scores [queries, rows] as those libraries give them.
"""

import json
import tempfile
from importlib.metadata import version
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

OUT = Path(__file__).resolve().parents[1] / "tests" / "influence" / "attribution_parity.json"
DAMPINGS = (0.003, 0.1)


def network(hidden: int) -> nn.Sequential:
    """Linear layers without biases; none hidden: logistic regression, whose Hessian is positive."""
    inner = [nn.Linear(5, hidden, bias=False), nn.Tanh()] if hidden else []
    return nn.Sequential(*inner, nn.Linear(hidden or 5, 3, bias=False))


class Classification(Task):
    def compute_train_loss(self, batch, model, sample=False):
        logits = model(batch[0])
        targets = torch.multinomial(logits.softmax(-1), 1).flatten() if sample else batch[1]
        return F.cross_entropy(logits, targets, reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)


def by_kronfluence(model: nn.Module, rows: TensorDataset, queries: TensorDataset) -> dict[str, list]:
    """EK-FAC's pairwise scores on the rows' own labels (empirical Fisher), which need no random numbers."""
    task, found = Classification(), {}
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("parity", prepare_model(model, task), task, cpu=True, output_dir=folder, disable_tqdm=True,
                            disable_model_save=True)
        kinds = {name: torch.float64 for name in (
            "amp_dtype", "activation_covariance_dtype", "gradient_covariance_dtype", "eigendecomposition_dtype",
            "lambda_dtype", "per_sample_gradient_dtype")}
        del kinds["amp_dtype"]
        analyzer.fit_all_factors("factors", rows, per_device_batch_size=8, overwrite_output_dir=True,
                                 factor_args=FactorArguments("ekfac", use_empirical_fisher=True, **kinds))
        for damping in DAMPINGS:
            options = ScoreArguments(damping_factor=damping, score_dtype=torch.float64,
                                     per_sample_gradient_dtype=torch.float64, precondition_dtype=torch.float64)
            analyzer.compute_pairwise_scores("scores", "factors", queries, rows, per_device_query_batch_size=4,
                                             per_device_train_batch_size=8, score_args=options,
                                             overwrite_output_dir=True)
            found[str(damping)] = analyzer.load_pairwise_scores("scores")["all_modules"].tolist()
    return found


def by_dattri(model: nn.Module, rows: TensorDataset, queries: TensorDataset, kind: type) -> dict[str, list]:
    def loss(params, data):
        x, y = data
        logits = torch.func.functional_call(model, params, x.reshape(-1, 5))
        return F.cross_entropy(logits, y.reshape(-1))

    task, found = AttributionTask(loss_func=loss, model=model, checkpoints=[model.state_dict()]), {}
    whole, asked = DataLoader(rows, batch_size=len(rows)), DataLoader(queries, batch_size=len(queries))
    for damping in DAMPINGS:
        attributor = kind(task=task, regularization=damping)
        attributor.cache(whole)
        with torch.no_grad():
            found[str(damping)] = attributor.attribute(whole, asked).T.tolist()
    return found


def problem(hidden: int) -> tuple[nn.Module, TensorDataset, TensorDataset]:
    torch.manual_seed(hidden)
    model = network(hidden).double()
    return model, *(TensorDataset(torch.randn(n, 5).double(), torch.randint(3, (n,))) for n in (24, 4))


def main() -> None:
    record = {"versions": {name: version(name) for name in ("kronfluence", "dattri", "torch")}, "problems": {}}
    for name, hidden in {"regression": 0, "network": 6}.items():
        model, rows, queries = problem(hidden)
        own = {"hidden": hidden, "weights": [p.tolist() for p in model.parameters()],
               "rows": [x.tolist() for x in rows.tensors], "queries": [x.tolist() for x in queries.tensors]}
        single = [TensorDataset(data.tensors[0].float(), data.tensors[1]) for data in (rows, queries)]
        found = {"dattri datainf": by_dattri(model.float(), *single, IFAttributorDataInf)}  # it has no other type
        model.double()
        if not hidden:
            found["dattri explicit"] = by_dattri(model, rows, queries, IFAttributorExplicit)
        found["kronfluence ekfac"] = by_kronfluence(model, rows, queries)
        record["problems"][name] = own | {"scores": found}
    OUT.write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
