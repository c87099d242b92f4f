"""Unlearning with any objective: from rows to an adapter or a model."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "batches": ["Batcher", "Reference", "Templates", "make_batcher", "read_templates"],
    "forward": ["answer_positions", "chosen_positions", "forward_terms", "group_lines", "layer_key", "run_model"],
    "lines": ["COUNTED", "count_rows", "fill_lines", "lay_out"],
    "processes": ["settings_alone", "world"],
    "reference_pass": ["can_share_lines", "compute_reference"],
    "schedule": ["Schedule", "filled", "make_schedule"],
    "settings": ["SETTINGS", "UnlearnSettings", "rows_to_read", "steps_and_warmup"],
    "trained": ["Trained", "trainable", "whole_model"],
    "trainer": ["StepRecorder", "UnlearnTrainer", "make_trainer", "schedule_for", "step_counts"],
    "unlearner": ["History", "peak_memory_mb", "unlearn"],
})
