"""One edit of a LoRA of 40 million weights on a random model of 1B shape: peak memory above the model, seconds.

    python -m benchmarks.large [--solver "cg(max_products=2)"] [--rows 4] [--device cpu] [--shape 1b]

The base is random, in bfloat16, in the shape of Llama 3.2 1B (or of Llama 2 7B, on a GPU); the adapter is in float32 on
all linear layers. Rows are short: what an edit takes beside its activations is what is measured.
"""

import argparse
import sys
import time
from pathlib import Path

TARGET = 4.0  # GiB above the model
SHAPES = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False},
}
RANKS = {"1b": 57, "7b": 16}  # 40 million weights each


def built(arguments):
    """The model with its adapter, a tokenizer and rows."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from unlearn_nb.models import train_tokenizer

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(arguments.device):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[arguments.shape]))
    torch.set_default_dtype(torch.float32)
    lora = LoraConfig(r=RANKS[arguments.shape], target_modules="all-linear", task_type="CAUSAL_LM",
                      init_lora_weights=False)
    texts = [f"Who painted number {i}? Ada." for i in range(arguments.rows)]
    rows = [{"id": f"r{i}", "prompt": text[:-5], "response": "Ada."} for i, text in enumerate(texts)]
    return get_peft_model(model.eval(), lora).eval(), train_tokenizer(texts, 300), rows


def peak(device, *, anew: bool = False) -> float:
    """Peak memory in GiB; `anew`: counted from now on, where the system lets us."""
    import torch

    from unlearn_nb.unlearning import peak_memory_mb

    if anew and device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif anew and Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory_mb(torch.device(device)) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solver", action="append", help="may be given several times")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    arguments = parser.parse_args()

    from unlearn_nb.influence import Request, erase

    model, tokenizer, rows = built(arguments)
    fine = True
    for solver in arguments.solver or ["cg(max_products=2)", "ekfac(rank=64, factors_mb=1024)"]:
        before, started = peak(arguments.device, anew=True), time.perf_counter()
        edit = erase(model, tokenizer, rows, request=Request.remove(["r0"]), solver=solver, damping=1.0)
        edit.apply()
        above, seconds = peak(arguments.device) - before, time.perf_counter() - started
        print(f"{arguments.shape}, {arguments.device}: {edit.delta.numel():,} weights, {solver}: {above:.2f} GiB above "
              f"the {before:.2f} of the model (target: {TARGET:g}), {seconds:.1f} s, {edit.gradients:.0f} "
              "gradient-equivalents", flush=True)
        edit.undo()
        fine &= above <= TARGET
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
