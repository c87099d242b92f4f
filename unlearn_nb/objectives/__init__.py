"""Loss terms, how they add up to objectives, and the published ones by name."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "ascent": ["SatImp", "WGA", "WeightedAscent"],
    "constraint": ["Constraint", "Duals"],
    "dpo": ["DPO"],
    "inputs": ["TermInputs", "at_least_float32", "in_chunks", "ratio", "token_logps"],
    "jensen_shannon": ["JSD"],
    "likelihood": ["GA", "KL", "NLL", "kl_sum"],
    "methods": ["read_erase", "read_method"],
    "npo": ["NPO", "Preference"],
    "parser": ["parse_objective"],
    "presets": ["ALIASES", "PRESETS", "Preset", "meant_objective", "resolve"],
    "rmu": ["EmbedDiff", "RMU", "control_vector"],
    "simnpo": ["SimNPO"],
    "targets": ["CEU", "UNDIAL"],
    "terms": ["Algebra", "GROUPS", "Objective", "TERMS", "Term", "check_choices", "check_number", "finite_weight",
        "parts_of"],
    "uniform": ["Margin", "MaxEnt"],
})
