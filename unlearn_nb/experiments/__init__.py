"""experiments"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "base": ["Experiment", "adapted", "choose_dtype", "in_words"],
    "eraser": ["ASCENT", "BOOTSTRAP", "CHUNKS", "EraserExperiment", "FACTS_LR", "SHARE_OF_RETRAINING", "compare",
        "edited", "fingerprint", "retrained", "score", "sharded", "spent", "start_of", "task_rows", "tuned",
        "walked", "walking_rows"],
    "eraser_cases": ["CHANGES", "Case", "Problem", "TaskRows", "chooser", "in_parts", "make_problem", "part_of",
        "reading_cost"],
    "eraser_trials": ["GAP", "RESPONSE_DAMPINGS", "SWEPT", "WANTED", "against_response", "agreement",
        "damping_trials", "effort_trials", "failing_from", "rank_trials", "recoveries", "sequence_trials", "trials",
        "weight_change", "with_recovery"],
    "localization": ["DRAWS", "LocalizationExperiment", "conclusion", "locate", "measures", "overlaps", "resized",
        "seed_count", "supervise_in", "unlearn_in"],
    "localization_masks": ["METHODS", "MaskPlan", "deal_groups", "inject_groups", "unlearn_group"],
    "merging": ["MergingExperiment", "ROLES", "Role", "choose", "compare_methods", "forget_part", "merge_records",
        "role_trajectory", "search_merge", "train_role"],
    "relearn": ["ATTACKED", "RATED", "ReLearnExperiment", "balance", "rate_answers", "relearn_after",
        "train_methods", "under_attacks"],
    "tuning": ["ALPHA_PER_RANK", "new_adapter", "pooled", "shards", "tune", "walk"],
})
