"""objectives"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "forget_terms": ["CEU", "EmbedDiff", "RMU", "SatImp", "UNDIAL", "WGA", "WeightedAscent", "control_vector"],
    "preferences": ["DPO", "NPO", "Preference", "SimNPO"],
    "presets": ["PRESETS", "TERMS", "parse_objective", "read_call", "resolve", "suggest"],
    "terms": ["Algebra", "GA", "GROUPS", "KL", "NLL", "Objective", "Term", "TermInputs", "at_least_fp32",
        "check_choices", "check_number", "finite_weight", "in_chunks", "kl_sum", "parts_of", "ratio",
        "token_logps"],
})
