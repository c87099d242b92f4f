"""Unlearning with any objective: from rows to an adapter or a model."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "batches": ["Batcher", "Reference", "Templates", "make_batcher", "read_templates"],
    "distil": ["DISTIL", "add_noise", "noise_then_distil"],
    "forward": ["answer_positions", "chosen_positions", "forward_terms", "group_lines", "layer_key", "only_groups",
        "run_model"],
    "lines": ["COUNTED", "count_rows", "fill_lines", "lay_out"],
    "plans": ["Alternating", "Chunked", "PLANS", "Phase", "Plan", "planned"],
    "processes": ["accelerate_file", "settings_alone", "sharding", "world"],
    "redirect": ["PromptSums", "down_projection", "lunar", "prompt_sums", "redirection"],
    "reference_pass": ["can_share_lines", "compute_reference"],
    "schedule": ["Schedule", "filled", "make_schedule"],
    "settings": ["SETTINGS", "UnlearnSettings", "for_preset", "rows_to_read", "steps_and_warmup"],
    "sharpness": ["STEPS", "Sharpness"],
    "trained": ["Trained", "trainable", "whole_model"],
    "trainer": ["PhasedTrainer", "SharpPass", "StepRecorder", "UnlearnTrainer", "make_trainer", "phases_for",
        "schedule_for", "step_counts", "step_loss", "steps_of_phases"],
    "unlearner": ["History", "peak_memory_mb", "unlearn"],
})
