"""analysis"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "answer_tokens": ["POSITION_KEYS", "POSITION_VALUES", "answer_log_probs", "candidate_columns",
        "candidate_table", "candidates", "checked_log_softmax", "entropy", "row_names", "token_candidates"],
    "layers": ["find_parts", "forward_kl", "layer_lens", "layer_logits", "lens_over_rows"],
    "probability_mass": ["follow", "seesaw", "seesaw_summary", "subject_intervals"],
    "trajectories": ["PAIRS", "angle_degrees", "density_sweep", "module_place", "trajectory", "trajectory_row",
        "turning_point", "update_angles", "weight_norms"],
})
