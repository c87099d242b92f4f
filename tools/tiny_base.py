"""Make the base of `tiny` anew and say how far it is from the one in the package: python tools/tiny_base.py [--write]

One core takes a minute or two. On another machine sums are rounded otherwise, and 400 steps carry that far: weights
differ then, what they know does not. --write puts the new one in the place of the old.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "unlearn_nb" / "models" / "tiny_base"
STRANGERS = 200  # rows of a bench's holdout


def compare(new: Path, old: Path) -> str:
    """How far two bases are from each other, in words."""
    from safetensors.torch import load_file

    from unlearn_nb.benches import load_bench
    from unlearn_nb.models import load_model, sequence_nll

    one, other = (load_file(folder / "model.safetensors") for folder in (new, old))
    apart = max((one[name].float() - other[name].float()).abs().max().item() for name in one)
    rows = list(load_bench("biographies", size="quick", seed=0).holdout)[:STRANGERS]
    nll = [sequence_nll(*load_model(folder), rows).mean() for folder in (new, old)]
    return (f"weights differ by at most {apart:.3g}; strangers' rows cost {nll[0]:.4f} nats a token under the new base "
            f"and {nll[1]:.4f} under the one in the package")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the base in the package")
    write = parser.parse_args().write

    from unlearn_nb.models import pretrain_tiny
    from unlearn_nb.runs import one_thread

    with tempfile.TemporaryDirectory() as place, one_thread():
        new = Path(place)
        pretrain_tiny(new)
        if FOLDER.is_dir():
            print(compare(new, FOLDER))
        if write:
            shutil.rmtree(FOLDER, ignore_errors=True)
            shutil.copytree(new, FOLDER, copy_function=shutil.copyfile)
            print(f"wrote {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
