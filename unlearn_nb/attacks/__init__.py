"""attacks"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "prompts": ["ATTACKS", "FLOATS", "LEVELS", "PRECISIONS", "ROLE_PLAY", "Rows", "at_precision", "change_rows",
        "jailbreak", "paraphrase", "prefix", "round_weight", "rounded_parameters", "under_attack"],
})
