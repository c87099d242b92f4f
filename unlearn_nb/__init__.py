"""Research on unlearning in language models."""

import warnings

import lazy_loader

__version__ = "0.1.0"

# Packages and verbs load when they are first asked for: `import unlearn_nb` costs next to nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["core", "benches", "objectives", "models", "regions", "augmentation", "unlearning", "localization",
                "influence", "merging", "metrics", "attacks", "analysis", "plots", "runs", "experiments"],
    submod_attrs={
        "benches": ["load_bench"],
        "models": ["load_model"],
        "augmentation": ["augment"],
        "unlearning": ["unlearn"],
        "localization": ["localize"],
        "influence": ["erase"],
        "merging": ["merge_adapters"],
        "metrics": ["evaluate"],
        "runs": ["run_study"],
    },
)

# Without ipywidgets tqdm shows its plain bar, which a terminal and a report can show, too; that needs no warning.
warnings.filterwarnings("ignore", message="IProgress not found")
