"""What the library does on one card in at most ten minutes: speed, memory, and whether it computes what a CPU does.

    python -m benchmarks.gpu [--shape 7b] [--device cuda] [--out gpu.json] [--limit 600] [--no-study]

A Llama of random weights is made on the device, in bfloat16; its LoRA factors and their optimiser are in float32, and
gradient checkpointing is on. Each part prints its figures and writes them to the JSON file as soon as it has them:

matmul      the rate of one large matrix product in the model's type, against which the others are put
step        the fused unlearning step (npo + kl + nll): tokens a second, share of that rate, peak memory
generation  greedy answers in batches: new tokens a second
merging     TIES of two adapters of that shape: from files, as ever, and with their tensors on the device
products    CG products of an edit by influence on all LoRA weights (40 million at 7b)
parity      a tiny model on the device and on the CPU, in float32 and in bfloat16
study       a smoke run of `forget` on the device

The share counts what is computed: forward, recomputed forward and backward through frozen weights, 6 FLOP a weight of
the decoder and token; attention and head come on top and are not counted. A part that fails is told, and the others
go on. Without a GPU, the small shape runs on the CPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

OBJECTIVE = "0.4*npo + 0.4*kl + 0.2*nll"
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2, "bfloat16 to float32": 5e-2}  # of a loss, relative
SHAPES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "vocab_size": 32000},
    "small": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
              "vocab_size": 512},
}
SIZES = {  # LoRA rank, side of the matrix product, rows of each group a step, their words, new tokens, rows written
    "7b": {"rank": 16, "matmul": 8192, "rows": 4, "words": 250, "new": 64, "written": 32, "steps": 6},
    "small": {"rank": 4, "matmul": 256, "rows": 2, "words": 12, "new": 6, "written": 4, "steps": 4},
}


def synchronised(device) -> float:
    """Now, in seconds, once the device has done all that it was told."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(call, device, times: int = 1) -> float:
    """Seconds of one call, a mean over `times`."""
    started = synchronised(device)
    for _ in range(times):
        call()
    return (synchronised(device) - started) / times


def rows_of(count: int, words: int, kind: str) -> list[dict]:
    """Rows of like length, half prompt and half response."""
    def text(i: int) -> str:
        return " ".join(f"{kind}{(7 * i + k) % 90}" for k in range(words // 2))

    return [{"id": f"{kind}{i}", "prompt": text(i), "response": text(i + count)} for i in range(count)]


class Bench:
    """The model of a shape on its device, a tokeniser, and what the parts share."""

    def __init__(self, shape: str, device: str, folder: Path):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from unlearn_nb.models import train_tokenizer

        self.shape, self.device, self.folder = shape, torch.device(device), folder
        self.size = SIZES[shape]
        self.tokenizer = train_tokenizer([row["prompt"] for kind in "fr" for row in rows_of(20, 100, kind)], 400)
        self.dtype = torch.bfloat16
        torch.manual_seed(0)
        torch.set_default_dtype(self.dtype)
        try:
            with self.device:
                self.model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape])).eval()
        finally:
            torch.set_default_dtype(torch.float32)
        self.rate, self.weights = 0.0, sum(p.numel() for p in self.model.model.layers.parameters())

    def settings(self, **changes):
        from unlearn_nb.unlearning import UnlearnSettings

        known = {"lr": 1e-4, "lora_r": self.size["rank"], "lora_dropout": 0.0, "batch_size": self.size["rows"]}
        return UnlearnSettings(**known | changes)

    def with_lora(self, seed: int):
        """The model with an adapter away from zero, so that both factors have a gradient."""
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        config = LoraConfig(r=self.size["rank"], target_modules="all-linear", task_type="CAUSAL_LM",
                            init_lora_weights=False)
        return get_peft_model(self.model, config).eval()

    @contextmanager
    def adapted(self, seed: int = 1):
        model = self.with_lora(seed)
        try:
            yield model
        finally:
            model.unload()

    def peak_gib(self) -> float:
        from unlearn_nb.unlearning import peak_memory_mb

        return peak_memory_mb(self.device) / 1024

    def forget_peak(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def matmul(bench: Bench) -> dict:
    """TFLOP a second of a square product in bfloat16 and in float32."""
    import torch

    n, found = bench.size["matmul"], {}
    for name in ("bfloat16", "float32"):
        a = torch.randn(n, n, device=bench.device, dtype=getattr(torch, name))
        b = torch.randn(n, n, device=bench.device, dtype=getattr(torch, name))
        seconds_of(lambda: a @ b, bench.device, 3)  # warms up
        found[name] = 2 * n**3 / seconds_of(lambda: a @ b, bench.device, 10) / 1e12
    bench.rate = found["bfloat16"]
    return {f"TFLOP/s in {name}": rate for name, rate in found.items()}


def step(bench: Bench) -> dict:
    """`unlearn` on rows of like length: the median of its steps after two."""
    import statistics

    from unlearn_nb.models import encode_rows
    from unlearn_nb.unlearning import unlearn

    size = bench.size
    forget, retain = (rows_of(size["rows"], size["words"], kind) for kind in "fr")
    tokens = sum(len(row.input_ids) for rows in (forget, retain) for row in encode_rows(bench.tokenizer, rows))
    bench.model.gradient_checkpointing_enable()
    try:
        history = unlearn(bench.model, bench.tokenizer, forget, retain, OBJECTIVE, out=bench.folder / "first",
                          settings=bench.settings(steps=size["steps"]), progress=False)
    finally:
        bench.model.gradient_checkpointing_disable()
    seconds = statistics.median(history.frame.seconds[2:])
    rate = 6 * bench.weights * tokens / seconds / 1e12
    assert history.computed_in == "bfloat16"
    return {"tokens a step": tokens, "s a step": seconds, "tokens/s": tokens / seconds, "TFLOP/s": rate,
            "share of the matmul rate": rate / bench.rate if bench.rate else None,
            "reference s": history.reference_seconds, "losses": history.frame.loss.tolist(),
            "the loss falls": bool(history.frame.loss.iloc[-1] < history.frame.loss.iloc[0])}


def generation(bench: Bench) -> dict:
    """`generate`: each row that a pass reads gives one new token."""
    from unlearn_nb.models import generate

    size, new = bench.size, 0

    def count(module, args, kwargs, output):
        nonlocal new
        new += output.logits.shape[0]

    handle = bench.model.register_forward_hook(count, with_kwargs=True)
    try:
        rows = rows_of(size["written"], size["words"], "f")
        seconds = seconds_of(lambda: generate(bench.model, bench.tokenizer, rows, max_new_tokens=size["new"],
                                              batch_size=size["written"]), bench.device)
    finally:
        handle.remove()
    return {"new tokens": new, "s": seconds, "tokens/s": new / seconds}


def merging(bench: Bench) -> dict:
    """TIES of two adapters in files, and with their tensors on the device; both must give the same."""
    from unlearn_nb.merging import merge_adapters
    from unlearn_nb.models import read_adapter, save_adapter

    folders = [bench.folder / f"adapter{seed}" for seed in (1, 2)]
    for seed, folder in enumerate(folders, 1):
        with bench.adapted(seed) as model:
            save_adapter(model, folder)
    options, found, merged = {"method": "ties", "density": 0.5}, {}, {}
    there = [read_adapter(folder) for folder in folders]
    there = [replace(one, tensors={k: t.to(bench.device) for k, t in one.tensors.items()}) for one in there]
    for name, adapters in {"from files": folders, "on the device": there}.items():
        started = synchronised(bench.device)
        merged[name] = merge_adapters(adapters, **options)
        found[f"{name} s"] = synchronised(bench.device) - started
    weights = sum(tensor.numel() for tensor in there[0].tensors.values())
    apart = max(float((a.cpu() - b.cpu()).abs().max())
                for a, b in zip(*(one.tensors.values() for one in merged.values())))
    assert apart < 1e-5, f"the merges differ by {apart}"
    return {"weights": weights, **found, "largest difference": apart}


def products(bench: Bench) -> dict:
    """An edit by CG with two products, on all LoRA weights."""
    from unlearn_nb.influence import Request, erase

    with bench.adapted() as model:
        rows = rows_of(4, 12, "f")
        started = synchronised(bench.device)
        edit = erase(model, bench.tokenizer, rows, request=Request.remove(["f0"]), solver="cg(max_products=2)",
                     damping=1.0)
        seconds = synchronised(bench.device) - started
        edit.apply()
        edit.undo()
    return {"weights": edit.delta.numel(), "s": seconds, "gradient-equivalents": edit.gradients,
            "s a gradient-equivalent": seconds / edit.gradients}


def losses_of(device: str, dtype: str, folder: Path) -> tuple[list[float], list[str]]:
    """Losses of three steps and the answers of `tiny`, in a type on a device."""
    from unlearn_nb.benches import load_bench
    from unlearn_nb.models import generate, load_model
    from unlearn_nb.unlearning import UnlearnSettings, unlearn

    bench = load_bench("biographies", size="smoke")
    model, tokenizer = load_model("tiny", device=device, dtype=dtype)
    forget, retain = (list(bench.split(name))[:8] for name in ("forget", "retain"))
    history = unlearn(model, tokenizer, forget, retain, OBJECTIVE, out=folder / f"{device}-{dtype}".replace(":", ""),
                      settings=UnlearnSettings(steps=3, lr=1e-3, lora_r=4, lora_dropout=0.0), progress=False)
    return history.frame.loss.tolist(), generate(model, tokenizer, forget, max_new_tokens=4)


def parity(bench: Bench) -> dict:
    """Largest relative difference of a loss, device to CPU; and of bfloat16 to float32 on the device."""
    here = str(bench.device)
    runs = {(place, kind): losses_of(place, kind, bench.folder / name)
            for name, place in (("here", here), ("cpu", "cpu")) for kind in ("float32", "bfloat16")
            if name == "here" or here != "cpu"}
    pairs = {"bfloat16 to float32": [(here, "bfloat16"), (here, "float32")]}
    if here != "cpu":
        pairs |= {kind: [(here, kind), ("cpu", kind)] for kind in ("float32", "bfloat16")}
    found = {name: max(abs(a - b) / abs(b) for a, b in zip(*(runs[run][0] for run in pair)))
             for name, pair in pairs.items()}
    wrong = [f"{name}: {value:.1e} > {TOLERANCES[name]}" for name, value in found.items() if value > TOLERANCES[name]]
    assert not wrong, "; ".join(wrong)
    same = {"same answers in float32": runs[here, "float32"][1] == runs["cpu", "float32"][1]} if here != "cpu" else {}
    return {"compared with": "the CPU" if here != "cpu" else "nothing: this is the CPU", **found, **same}


def study(bench: Bench) -> dict:
    """`unlearn-nb run forget --budget smoke` in a process of its own."""
    command = "from unlearn_nb.start import main; main()"
    done = subprocess.run([sys.executable, "-c", command, "run", "forget", "--budget", "smoke", "-p", "device",
                           str(bench.device), "--out", str(bench.folder / "reports")],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-2000:]
    return {"report": done.stdout.strip().splitlines()[-1].rsplit("/", 1)[-1]}


PARTS = {part.__name__: part for part in (matmul, step, generation, merging, products, parity, study)}


def shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(shown, value))
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def run_part(name: str, bench: Bench, left: float) -> dict:
    """The figures of a part, or why there are none."""
    if left <= 0:
        return {"left out": "no time left"}
    bench.forget_peak()
    started = synchronised(bench.device)
    try:
        found = PARTS[name](bench)
    except Exception as error:  # the other parts go on
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {error}"[:500]}
    return found | {"peak GiB": bench.peak_gib(), "whole s": synchronised(bench.device) - started}


def main() -> int:
    import torch

    warnings.simplefilter("ignore", FutureWarning)  # transformers has new names for gradient checkpointing
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b" if cuda else "small")
    parser.add_argument("--device", default="cuda:0" if cuda else "cpu")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which no part begins (0.8 of them)")
    parser.add_argument("--no-study", action="store_true")
    arguments = parser.parse_args()

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments.shape, arguments.device, Path(folder))
        name = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "CPU"
        record = {"shape": arguments.shape, "device": name, "torch": torch.__version__,
                  "made s": synchronised(bench.device) - started}
        print(f"{arguments.shape}, {name}, torch {torch.__version__}: made in {record['made s']:.1f} s", flush=True)
        for part in [part for part in PARTS if not (arguments.no_study and part == "study")]:
            record[part] = run_part(part, bench, 0.8 * arguments.limit - (time.perf_counter() - started))
            arguments.out.write_text(json.dumps(record, indent=1), encoding="utf-8")
            figures = ", ".join(f"{key} {shown(value)}" for key, value in record[part].items())
            print(f"{part:10s} {figures}", flush=True)
    parts = [found for found in record.values() if isinstance(found, dict)]
    return 1 if any("failed" in found or "left out" in found for found in parts) else 0


if __name__ == "__main__":
    sys.exit(main())
