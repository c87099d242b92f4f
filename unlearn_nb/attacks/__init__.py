"""Mild pressure on a model that has forgotten: rounded weights and changed prompts."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "asking": ["FewShot", "OtherFormat", "TRANSLATE", "Translation"],
    "attack": ["Attack", "AttackSetting", "LEAKS", "PromptAttack", "Rounding", "Unpressed", "as_attack", "leaks"],
    "attacked": ["Attacked", "DEFAULT_ATTACKS", "Loaded", "WORST", "attack_table", "excess_table"],
    "inference": ["Inference"],
    "probing": ["Probe", "answer_states", "first_layers"],
    "prompts": ["ATTACKS", "ROLE_PLAY", "Rows", "change_rows", "jailbreak", "noise", "paraphrase", "prefix",
        "under_attack"],
    "relearning": ["Recover", "SOURCES", "came_back", "log_area", "relearning_curves", "relearning_rows"],
    "rounding": ["CODES", "FLOATS", "LEVELS", "PRECISIONS", "at_precision", "changed_codes", "round_weight",
        "rounded_parameters"],
    "sampling": ["Sampling", "leak_at_k", "sample_answers", "tells"],
})
