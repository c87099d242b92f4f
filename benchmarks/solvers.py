"""Conjugate gradients against LLMEraser's published loop, on one system, to one residual.

    python -m benchmarks.solvers [--model tiny] [--rows 16] [--steps 40] [--device cpu]

Both solve (C + damping) x = b for a LoRA adapter of rank 8 that was tuned for 60 steps on `biographies`: C is the
Gauss-Newton matrix of some of its rows, b the right side of removing an eighth of them. The published loop has the
released script's knobs (Adam, step 1e-5, start 1e-5, half gradient), twice its steps, and all rows in each product, as
CG has: residuals of drawn rows could not be compared. It goes first; CG counts until its residual is as low as the
lowest that the loop passed. Three dampings, as shares of C's largest eigenvalue: the strongest is about the one that
the study `eraser` chooses and decides; at weaker ones CG, which minimises another norm than the residual's, takes
longer to show it. Each solver runs in a process of its own; the memory is the peak of that process (on a GPU: of its
allocator).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 10.0
SHARES = (0.1, 0.01, 0.001)  # damping, in largest eigenvalues
VARIANTS = ("published", "cg")


def system(arguments):
    """The curvature, the right side and the dampings."""
    import torch

    from unlearn_nb.benches import load_bench
    from unlearn_nb.experiments import tune
    from unlearn_nb.influence import Curvature, LanguageTask, TrainingLoss, largest_eigenvalue
    from unlearn_nb.models import Recipe, load_model, loss_of, tiny_base

    torch.set_num_threads(arguments.threads)
    bench = load_bench("biographies", size="smoke")
    rows = list(bench.training_rows())
    name = tiny_base() if arguments.model == "tiny" else arguments.model
    model, tokenizer = load_model(name, device=arguments.device)
    recipe = Recipe(steps=60, batch_size=16, lr=3e-3, lora_rank=8, loss_on="response")
    with tempfile.TemporaryDirectory() as folder:
        adapter = tune(model, tokenizer, rows, recipe, Path(folder), template=bench.template, progress=False).eval()
    task = LanguageTask(tokenizer, loss_of(adapter))
    loss = TrainingLoss(adapter, task.over(task.encode(rows)))
    part = rows[:: len(rows) // arguments.rows][: arguments.rows]
    removed = part[: max(1, len(part) // 8)]
    b = loss.gradient(removed) * len(removed) / len(part)
    curvature = Curvature(loss, part)
    top = largest_eigenvalue(curvature, b, steps=8)
    return curvature, b, [share * top for share in SHARES]


def run(variant: str, arguments) -> dict:
    """Residuals after each product at each damping, the start's first; seconds a product."""
    import torch

    from unlearn_nb.influence import ConjugateGradients, LLMEraserLoop, solve
    from unlearn_nb.unlearning import peak_memory_mb

    curvature, b, dampings = system(arguments)
    solver = {"published": LLMEraserLoop(batch=None, steps=arguments.steps),
              "cg": ConjugateGradients(max_products=arguments.steps, tol=1e-2)}[variant]
    started = time.perf_counter()
    found = [solve(solver, curvature, b, damping=damping) for damping in dampings]
    seconds = (time.perf_counter() - started) / sum(solution.products for solution in found)
    residuals = [solution.residuals if variant == "published" else solution.residuals[:-1] for solution in found]
    peak = peak_memory_mb(torch.device(arguments.device))
    return {"residuals": residuals, "seconds": seconds, "peak_mb": peak, "weights": len(b)}


def run_alone(variant: str, arguments) -> dict:
    """One solver in a process of its own."""
    options = [f"--{key}={getattr(arguments, key)}" for key in ("model", "device", "rows", "steps", "threads")]
    command = [sys.executable, __file__, f"--variant={variant}", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    return json.loads(done.stdout.splitlines()[-1])


def first_below(residuals: list[float], level: float) -> int | None:
    """Products until the residual is at most `level`; None where it never is."""
    return next((i for i, residual in enumerate(residuals) if residual <= level), None)


def report(published: dict, cg: dict, arguments) -> bool:
    """Print products, time and memory of both; return whether the target is met at the strongest damping."""
    print(f"{published['weights']:,} weights, {arguments.rows} rows; products and seconds until the lowest relative "
          f"residual that the published loop passes in {arguments.steps} products")
    print(f"{'damping / largest':>18}{'residual':>10}{'loop':>7}{'s':>7}{'CG':>6}{'s':>7}{'ratio':>8}")
    ratios = []
    for share, slow, fast in zip(SHARES, published["residuals"], cg["residuals"]):
        level = min(slow)
        counts = first_below(slow, level), first_below(fast, level)
        ratios.append(counts[0] / max(1, counts[1]) if counts[1] is not None else 0.0)
        times = [f"{(count or 0) * found['seconds']:.2f}" for count, found in zip(counts, (published, cg))]
        reached = counts[1] if counts[1] is not None else "-"
        print(f"{share:>18g}{level:>10.4f}{counts[0]:>7}{times[0]:>7}{reached:>6}{times[1]:>7}{ratios[-1]:>8.1f}")
    print(f"peak memory: published loop {published['peak_mb']:.0f} MiB, CG {cg['peak_mb']:.0f} MiB")
    deep = first_below(cg["residuals"][0], 1e-2)
    print(f"at the strongest damping the loop takes {ratios[0]:.1f} times as many products as CG "
          f"(target: at least {TARGET:.0f})"
          + (f"; CG goes on to a residual of 0.01 in {deep}" if deep is not None else ""))
    return ratios[0] >= TARGET


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40, help="products that each solver may take")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(run(arguments.variant, arguments)))
        return 0
    return 0 if report(run_alone("published", arguments), run_alone("cg", arguments), arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
