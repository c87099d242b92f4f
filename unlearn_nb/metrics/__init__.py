"""metrics"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "curves": ["CLOSURES", "METRICS", "Paired", "aues", "compare", "compare_paired", "curve_scores",
        "detectable_gap", "frontier", "mu95", "paired_power", "sign_flip_p"],
    "edits": ["Delta", "EditScores", "LABELS", "cost_table", "delta_agreement", "delta_table", "eraser",
        "evaluate_edit", "gap_recovery", "label_scores", "named_candidate", "rank_agreement", "recovery",
        "score_rows", "seed_recovery", "summed"],
    "entities": ["ENTITY_PROMPT", "FactEntities", "Found", "MINILM", "Matcher", "RuleEntities", "SHAPES",
        "WriterEntities", "coverage", "embed", "fact_values", "is_figure", "minilm_package", "normalise", "outside",
        "stretches", "tokens_of"],
    "extraction": ["Answer", "exact_memorisation", "extraction_strength", "extraction_table", "read_answers"],
    "language": ["EMPTY_BRUNET", "JUDGE_PROMPTS", "Judgement", "brunet", "honore", "judge", "language_table",
        "linguistic_score", "perplexity", "summary_language", "words"],
    "membership": ["ATTACKS", "MembershipScores", "evaluate_membership", "gradient_norms", "membership_table",
        "min_k", "privleak", "rel_diff"],
    "relearn": ["FactEntailment", "Labels", "ModelEntailment", "NEW_TOKENS", "NLI", "RelearnScores", "THRESHOLD",
        "evaluate_relearn", "forgotten", "load_nli", "retained", "score_answers", "states", "swapped_value"],
    "semeval": ["COLUMNS", "SUITES", "Scores", "bootstrap_weights", "cell_members", "choice_credit", "collect",
        "compare_table", "evaluate", "exact_match", "harmonic_mean", "intervals", "is_repetitive", "mia_auc",
        "mia_score", "mmlu_accuracy", "part_rows", "rouge_l_recall", "summarise", "to_html", "weighted_auc",
        "weighted_mean"],
    "tofu": ["AGGREGATIONS", "TofuScores", "answer_table", "evaluate_tofu", "forget_quality",
        "log10_forget_quality", "normalised_probability", "truth_ratio", "truth_score", "utility_terms"],
})
