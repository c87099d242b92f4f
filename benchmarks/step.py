"""One unlearning step: `unlearn` against the straightforward way, on the same model and rows.

    python -m benchmarks.step [--model smollm2] [--rounds 2] [--steps 5] [--device cpu]

fused            `unlearn_nb.unlearn`: one forward for forget and retain rows, short rows sharing a line, the head at
                 answer positions only, the reference computed once (its time is printed apart).
straightforward  what published scripts do: a deep copy as reference, two forwards of each model (forget, retain),
                 rows padded to 256 tokens, logits at every position.

Both train the same LoRA adapter in float32 on 4 forget and 4 retain rows of `biographies`, with the objective
0.4*npo + 0.4*kl + 0.2*nll, one AdamW and one seed. Each variant runs in a process of its own, alternating; the time is
the median step after the warm-up, the memory the peak of the whole process (on a GPU: of its allocator). The losses of
all steps must agree.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OBJECTIVE = "0.4*npo + 0.4*kl + 0.2*nll"
VARIANTS = ("fused", "straightforward")
TARGET_SPEED, TARGET_MEMORY, TOLERANCE = 4.0, 0.6, 1e-4
PADDED_LENGTH, WARM_UP, BETA = 256, 2, 0.1


def load(arguments):
    """Model, tokeniser, rows and settings shared by both variants."""
    import torch

    from unlearn_nb.benches import load_bench
    from unlearn_nb.models import load_model
    from unlearn_nb.unlearning import UnlearnSettings

    torch.set_num_threads(arguments.threads)
    bench = load_bench("biographies", size="quick")
    rows = [bench.split(name) for name in ("forget", "retain")]
    forget, retain = ([part[i * len(part) // 4] for i in range(4)] for part in rows)
    settings = UnlearnSettings(
        lr=1e-4, steps=WARM_UP + arguments.steps, batch_size=4, max_length=PADDED_LENGTH, lora_dropout=0.0
    )
    return *load_model(arguments.model, device=arguments.device), forget, retain, settings


def nothing(arguments) -> dict:
    load(arguments)
    return {}


def fused(arguments) -> dict:
    from unlearn_nb.unlearning import unlearn

    model, tokenizer, forget, retain, settings = load(arguments)
    with tempfile.TemporaryDirectory() as folder:
        history = unlearn(
            model, tokenizer, forget, retain, OBJECTIVE, settings=settings, out=Path(folder) / "adapter", progress=False
        )
    return {
        "losses": history.frame.loss.tolist(),
        "seconds": history.frame.seconds.tolist(),
        "peak_mb": history.peak_mb,
        "reference_seconds": history.reference_seconds,
    }


def padded_batch(tokenizer, rows, device):
    """`input_ids`, `attention_mask`, `labels`, each `[4, 256]`."""
    import torch

    from unlearn_nb.models import encode

    ids, mask, labels = [], [], []
    for row in rows:
        row_ids, row_labels = encode(tokenizer, row["prompt"], row["response"], "plain", PADDED_LENGTH)
        gap = PADDED_LENGTH - len(row_ids)
        ids.append(row_ids + [tokenizer.pad_token_id] * gap)
        mask.append([1] * len(row_ids) + [0] * gap)
        labels.append(row_labels + [-100] * gap)
    return {
        key: torch.tensor(value, device=device)
        for key, value in {"input_ids": ids, "attention_mask": mask, "labels": labels}.items()
    }


def straightforward_loss(model, reference, forget, retain):
    import torch
    import torch.nn.functional as F

    def logps(logits, labels):  # per-sequence sum over the answer tokens
        labels = labels[:, 1:]
        picked = logits[:, :-1].log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return (picked * (labels != -100)).sum(-1)

    out, retain_out = model(**forget), model(**retain)
    with torch.no_grad():
        ref_out, retain_ref_out = reference(**forget), reference(**retain)
    gap = logps(out.logits, forget["labels"]) - logps(ref_out.logits, forget["labels"])
    npo = (-2 / BETA * F.logsigmoid(-BETA * gap)).mean()
    answers = retain["labels"][:, 1:] != -100
    new, old = retain_out.logits[:, :-1].log_softmax(-1), retain_ref_out.logits[:, :-1].log_softmax(-1)
    kl = ((new.exp() * (new - old)).sum(-1) * answers).sum() / answers.sum()
    return 0.4 * npo + 0.4 * kl + 0.2 * retain_out.loss


def straightforward(arguments) -> dict:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import get_linear_schedule_with_warmup, set_seed

    from unlearn_nb.unlearning import peak_memory_mb

    model, tokenizer, forget, retain, settings = load(arguments)
    reference = copy.deepcopy(model).eval()
    set_seed(settings.seed)
    model = get_peft_model(
        model,
        LoraConfig(
            r=settings.lora_r, lora_alpha=settings.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    ).train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=settings.lr, weight_decay=settings.weight_decay)
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, settings.steps)
    losses, seconds = [], []
    for _ in range(settings.steps):
        started = time.perf_counter()
        batches = [padded_batch(tokenizer, rows, arguments.device) for rows in (forget, retain)]
        loss = straightforward_loss(model, reference, *batches)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, settings.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
    return {"losses": losses, "seconds": seconds, "peak_mb": peak_memory_mb(torch.device(arguments.device))}


def run_alone(variant: str, arguments) -> dict:
    """One variant in a process of its own."""
    options = [f"--{key}={getattr(arguments, key)}" for key in ("model", "device", "steps", "threads")]
    command = [sys.executable, __file__, f"--variant={variant}", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    return json.loads(done.stdout.splitlines()[-1])


def measure(arguments) -> dict[str, list[dict]]:
    """Run each variant `rounds` times, alternating."""
    results: dict[str, list[dict]] = {variant: [] for variant in VARIANTS}
    run_alone("nothing", arguments)  # fills the model cache, so that no variant pays for a conversion
    for number in range(arguments.rounds):
        for variant in VARIANTS:
            results[variant].append(run_alone(variant, arguments))
            print(
                f"round {number + 1}, {variant}: {median_step(results[variant][-1:]):.2f} s a step, "
                f"{results[variant][-1]['peak_mb']:.0f} MiB",
                flush=True,
            )
    return results


def median_step(runs: list[dict]) -> float:
    return statistics.median(second for run in runs for second in run["seconds"][WARM_UP:])


def report(results: dict[str, list[dict]]) -> bool:
    """Print both figures, check that the losses agree; return whether both targets are met."""
    pairs = [
        (a, b) for one, other in zip(*results.values()) for a, b in zip(one["losses"], other["losses"], strict=True)
    ]
    difference = max(abs(a - b) for a, b in pairs)
    steps = len(results["fused"][0]["losses"])
    print(
        f"\nloss after {steps} steps: {pairs[-1][0]:.6f} fused, {pairs[-1][1]:.6f} straightforward; "
        f"largest difference over all steps {difference:.1e} (tolerance {TOLERANCE})"
    )
    assert difference <= TOLERANCE, "the two variants do not compute the same loss"
    seconds = {variant: median_step(runs) for variant, runs in results.items()}
    memory = {variant: statistics.median(run["peak_mb"] for run in runs) for variant, runs in results.items()}
    for variant in VARIANTS:
        print(f"{variant:16s} {seconds[variant]:7.2f} s a step   {memory[variant]:7.0f} MiB peak")
    speed, share = seconds["straightforward"] / seconds["fused"], memory["fused"] / memory["straightforward"]
    print(
        f"fused is {speed:.1f} times as fast (target: at least {TARGET_SPEED}) "
        f"with {share:.2f} times the peak memory (target: at most {TARGET_MEMORY}); "
        f"the reference took {results['fused'][0]['reference_seconds']:.1f} s once"
    )
    return speed >= TARGET_SPEED and share <= TARGET_MEMORY


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a process")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", choices=(*VARIANTS, "nothing"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(globals()[arguments.variant](arguments)))
        return 0
    return 0 if report(measure(arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
