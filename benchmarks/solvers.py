"""Conjugate gradients against LLMEraser's published loop, on one system, to one residual.

    python -m benchmarks.solvers [--model tiny] [--rows 16] [--steps 100] [--device cpu]

Both solve (C + damping) x = b for a LoRA adapter of rank 8 on rows of `biographies`: C is the Gauss-Newton matrix of
all rows, b the gradient of removing a tenth of them. The published loop has the released script's knobs (Adam, step
1e-5, start 1e-5, half gradient) but is given all rows in each product, as CG is: with its mini-batches of one row it
does no better. It runs for `steps` products, five times as many as released; CG runs until its residual is as low as
the lowest that the loop passed. Each runs in a process of its own; the memory is the peak of the whole process (on a
GPU: of its allocator).
"""

import argparse
import json
import subprocess
import sys
import time

TARGET = 10.0
ROWS_REMOVED = 0.1


def system(arguments):
    """The curvature, the right side and the damping."""
    import torch
    from peft import LoraConfig, get_peft_model

    from unlearn_nb.benches import load_bench
    from unlearn_nb.curvature import Curvature, LanguageTask, TrainingLoss
    from unlearn_nb.models import load_model
    from unlearn_nb.solvers import mean_diagonal
    from unlearn_nb.training import tiny_base

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    name = tiny_base() if arguments.model == "tiny" else arguments.model
    model, tokenizer = load_model(name, device=arguments.device)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    bench = load_bench("biographies", size="smoke")
    rows = list(bench.training_rows())[: arguments.rows]
    loss = TrainingLoss(get_peft_model(model, config).eval(), LanguageTask(tokenizer, bench.template))
    removed = rows[: max(1, round(ROWS_REMOVED * len(rows)))]
    b = loss.gradient(removed) * len(removed) / len(rows)
    curvature = Curvature(loss, rows)
    return curvature, b, 0.1 * mean_diagonal(curvature, b)


def run(variant: str, arguments) -> dict:
    import torch

    from unlearn_nb.solvers import solve
    from unlearn_nb.unlearn import _peak_mb

    curvature, b, damping = system(arguments)
    options = {"batch": None, "steps": arguments.steps} if variant == "published" else {"tol": arguments.level}
    started = time.perf_counter()
    solution = solve("faithful" if variant == "published" else "cg", curvature, b, damping, **options)
    return {
        "residuals": solution.residuals[:-1],
        "seconds": (time.perf_counter() - started) / solution.products,
        "peak_mb": _peak_mb(torch.device(arguments.device)),
        "weights": len(b),
    }


def run_alone(variant: str, arguments, level: float = 0.0) -> dict:
    """One solver in a process of its own."""
    options = [f"--{key}={getattr(arguments, key)}" for key in ("model", "device", "rows", "steps", "threads")]
    command = [sys.executable, __file__, f"--variant={variant}", f"--level={level}", *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def first_below(residuals: list[float], level: float) -> int:
    """How many products it took; the residual before any stands first."""
    return next(i for i, residual in enumerate(residuals) if residual <= level)


def report(published: dict, cg: dict, level: float, arguments) -> bool:
    """Print products, time and memory of both; return whether the target is met."""
    counts = {"published loop": (published, first_below(published["residuals"], level)),
              "CG": (cg, first_below(cg["residuals"], level))}
    print(f"{published['weights']:,} weights, {arguments.rows} rows; lowest relative residual that the published loop "
          f"passes in {arguments.steps} products: {level:.4f}")
    print(f"{'':16}{'products':>10}{'seconds':>10}{'peak MiB':>10}")
    for name, (found, products) in counts.items():
        print(f"{name:16}{products:>10}{products * found['seconds']:>10.2f}{found['peak_mb']:>10.0f}")
    ratio = counts["published loop"][1] / max(1, counts["CG"][1])
    further = next((i for i, r in enumerate(cg["residuals"]) if r <= 0.1), None)
    print(f"the published loop needs {ratio:.1f}x the products of CG (wanted: {TARGET:.0f}x)"
          + (f"; CG reaches a residual of 0.1 after {further}" if further is not None else ""))
    return ratio >= TARGET


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100, help="products of the published loop")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", choices=("published", "cg"), help=argparse.SUPPRESS)
    parser.add_argument("--level", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(run(arguments.variant, arguments)))
        return
    published = run_alone("published", arguments)
    level = min(published["residuals"])
    cg = run_alone("cg", arguments, min(level, 0.1))
    sys.exit(0 if report(published, cg, level, arguments) else 1)


if __name__ == "__main__":
    main()
