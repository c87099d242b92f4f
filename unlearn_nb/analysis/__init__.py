"""What happens inside: trajectories of a run, candidates for each answer token, what every layer would say."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "layers": ["find_parts", "forward_kl", "layer_lens", "layer_logits", "lens_over_rows"],
    "next_tokens": ["Positions", "answer_positions", "entropy", "follow", "log_probabilities", "token_candidates",
        "top_candidates"],
    "shares": ["seesaw", "seesaw_summary"],
    "trajectories": ["PAIRS", "angle_degrees", "density_sweep", "module_place", "trajectory", "trajectory_row",
        "turning_point", "update_angles", "weight_norms"],
})
