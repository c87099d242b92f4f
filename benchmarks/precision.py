"""Unlearning in bfloat16, as studies do it, against float32: seconds a step, memory, and how far the losses are apart.

    python benchmarks/precision.py [--model smollm2] [--steps 60] [--rounds 1] [--threads 1] [--device cpu]

All train the same LoRA adapter on 24 forget and 48 retain rows of `biographies`, 4 and 8 a step, with npo + nll at
1e-3. `mixed` computes in bfloat16 on float32 weights; `bfloat16` holds the frozen weights in it, too, as studies do, so
that it begins with a rounded model. Each run has a process of its own, in alternation; the time is the median step
after the first two, the memory the peak of the whole process (on a GPU: of its allocator). Fails where a loss of mixed
is more than 5 % off.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

KINDS = {"float32": ("float32", "float32"), "mixed": ("float32", "bfloat16"), "bfloat16": ("bfloat16", "bfloat16")}
TOLERANCE, WARM_UP = 0.05, 2


def train(kind: str, arguments) -> dict:
    """Losses, seconds a step and peak memory of one training."""
    import torch

    from unlearn_nb.benches import load_bench
    from unlearn_nb.models import load_model
    from unlearn_nb.unlearning import UnlearnSettings, unlearn

    torch.set_num_threads(arguments.threads)
    held, computed = KINDS[kind]
    bench = load_bench("biographies", size="quick")
    forget, retain = (list(bench.split(name))[:count] for name, count in {"forget": 24, "retain": 48}.items())
    model, tokenizer = load_model(arguments.model, device=arguments.device, dtype=held)
    settings = UnlearnSettings(lr=1e-3, steps=arguments.steps, batch_size=4, retain_per_forget=2.0, warmup=0.1,
                               lora_dropout=0.0, dtype=computed)
    with tempfile.TemporaryDirectory() as folder:
        history = unlearn(model, tokenizer, forget, retain, "npo + nll", settings=settings,
                          out=Path(folder) / "adapter", progress=False)
    return {"losses": history.frame.loss.tolist(), "seconds": history.frame.seconds.tolist(),
            "peak_mb": history.peak_mb}


def train_alone(kind: str, arguments) -> dict:
    """The same in a process of its own."""
    options = [f"--{key}={getattr(arguments, key)}" for key in ("model", "steps", "threads", "device")]
    done = subprocess.run([sys.executable, __file__, f"--kind={kind}", *options], check=True, stdout=subprocess.PIPE,
                          encoding="utf-8")
    return json.loads(done.stdout.splitlines()[-1])


def report(runs: dict[str, list[dict]]) -> bool:
    """Print the figures; return whether the losses agree."""
    step = {kind: statistics.median(second for run in found for second in run["seconds"][WARM_UP:])
            for kind, found in runs.items()}
    for kind, found in runs.items():
        print(f"{kind:9} {step[kind]:7.2f} s a step  {max(run['peak_mb'] for run in found):7.0f} MiB peak")
    wide, worst = runs["float32"][0]["losses"], {}
    for kind in ("mixed", "bfloat16"):
        apart = [abs(a - b) / abs(b) for a, b in zip(runs[kind][0]["losses"], wide, strict=True)]
        worst[kind] = max(apart)
        print(f"{kind}: {step['float32'] / step[kind]:.2f} times as fast as float32; of {len(apart)} losses the "
              f"farthest is {worst[kind]:.1%} off (step {apart.index(worst[kind]) + 1}), the median "
              f"{statistics.median(apart):.1%}")
    print(f"mixed may be {TOLERANCE:.0%} off")
    return worst["mixed"] <= TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kind", choices=list(KINDS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(train(arguments.kind, arguments)))
        return 0
    runs: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind in KINDS:
            runs[kind].append(train_alone(kind, arguments))
    return 0 if report(runs) else 1


if __name__ == "__main__":
    sys.exit(main())
