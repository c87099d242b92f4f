"""Mild pressure on a model that has forgotten: rounded weights and changed prompts."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "prompts": ["ATTACKS", "ROLE_PLAY", "Rows", "change_rows", "jailbreak", "paraphrase", "prefix", "under_attack"],
    "rounding": ["CODES", "FLOATS", "LEVELS", "PRECISIONS", "at_precision", "changed_codes", "round_weight",
        "rounded_parameters"],
})
