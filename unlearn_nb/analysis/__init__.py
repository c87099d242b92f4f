"""What happens inside: trajectories of a run, candidates for the answer, layers."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "candidates": ["answer_log_probs", "find_parts", "follow", "forward_kl", "layer_lens", "layer_logits",
        "lens_over_rows", "seesaw", "seesaw_summary", "token_candidates"],
    "trajectories": ["PAIRS", "angle_degrees", "density_sweep", "module_place", "trajectory", "trajectory_row",
        "turning_point", "update_angles", "weight_norms"],
})
