"""Studies: a plan as data, an experiment a seed, and claims that are computed."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "base": ["Experiment", "before_study", "choose_dtype", "score_candidate", "train_adapter"],
    "baselines": ["ALPHA_PER_RANK", "new_adapter", "pooled", "shards", "tune", "walk"],
    "claims": ["claims_table", "in_words", "mean_and_spread", "models_over_seeds", "over_seeds"],
    "erasing": ["ErasingExperiment", "ErasingPlan", "PUBLISHED", "SHARE_OF_RETRAINING", "chosen_of",
        "compare_edits", "edited", "erasing_plan", "fingerprint", "retrained", "score_stage", "sharded", "spent",
        "start_of", "task_rows", "tuned", "walked", "walking_rows"],
    "erasing_cases": ["CHANGES", "Case", "EXAMPLE_COLUMNS", "PROBLEM_COLUMNS", "Problem", "TaskRows", "chooser",
        "in_parts", "make_problem", "part_of", "problem_tables", "reading_cost"],
    "erasing_trials": ["GAP", "SPENT", "WANTED", "against_response", "agreement_in_words",
        "agreement_with_retraining", "damping_trials", "effort_trials", "erasing_claims", "failing_from",
        "part_by_part", "rank_trials", "recoveries", "recoveries_over_seeds", "response_lines", "sequence_trials",
        "trial", "trials", "weight_change", "with_recovery"],
    "forgetting": ["CHOSEN_ON", "ForgetExperiment", "ForgetPlan", "LEAST_SUBJECTS", "Trial", "UNSEEN",
        "before_unlearning", "best_candidate", "choosing_rows", "chosen_on", "forget_plan", "formats_of", "know",
        "measure_trial", "next_trial", "outcome_of", "search_strength", "share_left", "share_lost", "short_format",
        "spread", "swapped_rows", "train_trial", "unseen_source", "weigh"],
    "localization": ["DRAWS", "LocalizationExperiment", "LocalizationPlan", "MaskPlan", "RegionMethod", "curve_of",
        "inject", "localization_plan", "locate", "measured_rows", "measures", "overlaps", "recorder", "resized",
        "starting_point", "supervise_in", "unlearn_in"],
    "localization_masks": ["MASK_METHODS", "deal_groups", "inject_groups", "memory_of", "unlearn_group"],
    "localization_report": ["conclusion", "localization_claims", "paired_table", "supervision_in_words"],
    "merging": ["MergingExperiment", "MergingPlan", "ROLES", "Role", "choose", "compare_methods", "forget_part",
        "merge_records", "merging_claims", "merging_plan", "role_trajectory", "search_merge", "train_role"],
    "plan": ["BUDGETS", "Kind", "NAMED", "SIZES", "StudyPlan", "UnlearningPlan", "WHEN", "build",
        "count_parameters", "fits", "followed_code", "model_size", "overlaid", "read_plan", "read_rules",
        "size_of"],
    "relearn": ["DAMAGE", "JUDGES", "ReLearnExperiment", "ReLearnMethod", "ReLearnPlan", "attacked_rows",
        "augmented_set", "author_of", "balance", "baseline_method", "for_bench", "rate_answers", "relearn_after",
        "relearn_claims", "relearn_plan", "train_method", "train_methods", "training_set", "under_attacks"],
    "truth": ["ASKED", "LIMIT", "MEASURES", "NONE_GIVEN", "PROBED", "PROBED_SPLITS", "REASONS", "Truth",
        "known_share", "probe_rows", "probed", "truth_of"],
})
