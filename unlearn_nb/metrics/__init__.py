"""What a model knows, says and gives away: suites, their scores, and comparisons of them."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "agreement": ["Delta", "cost_table", "delta_agreement", "delta_table", "rank_agreement"],
    "curves": ["CLOSURES", "METRICS", "Paired", "aues", "compare", "compare_paired", "curve_scores",
        "detectable_gap", "frontier", "mu95", "paired_power", "sign_flip_p"],
    "edits": ["EDIT_NUMBERS", "Edits", "LABELS", "label_scores", "measure_of", "named_candidate", "score_rows"],
    "entailment": ["FactEntailment", "Labels", "ModelEntailment", "NLI", "as_entailment", "load_nli", "states",
        "swapped_value"],
    "entities": ["ENTITY_PROMPT", "FactEntities", "Found", "MATCHES", "MINILM", "Matcher", "RuleEntities", "SHAPES",
        "WriterEntities", "coverage", "embed", "entities_of", "fact_values", "is_figure", "minilm_package",
        "normalise", "outside", "stretches", "tokens_of"],
    "extraction": ["Answer", "exact_memorisation", "extraction_strength", "extraction_table", "read_answers"],
    "formats": ["format_in_words", "formats_table", "other_format"],
    "gaps": ["gap_recovery", "recovery", "seed_recovery"],
    "language": ["EMPTY_BRUNET", "JUDGE_PROMPTS", "Judgement", "brunet", "honore", "judge", "language_table",
        "linguistic_score", "perplexity", "summary_language"],
    "logs": ["LOG_SETS", "log_column", "log_rouge", "log_summary", "read_log", "tofu_log_rows"],
    "meanings": ["Meaning", "explained", "glossary", "meanings_of"],
    "membership": ["MIA_ATTACKS", "Membership", "attack_scores", "gradient_norms", "membership_table", "mia_auc",
        "mia_score", "min_k", "privleak", "rel_diff", "scored_texts"],
    "relearn": ["Relearn", "THRESHOLD", "forgotten", "retained", "score_answers", "split_summary"],
    "resampling": ["LEAST_N", "NOT_ENOUGH", "bootstrap_weights", "check_draws", "harmonic_mean", "intervals",
        "quantile", "ratio", "subject_means", "subject_numbers", "subjects_behind", "weighted_auc", "weighted_mean",
        "weighted_median", "without_value"],
    "scores": ["ALIKE", "COLUMNS", "NOT_AVAILABLE", "SCORING", "SUITES", "Scores", "Suite", "evaluate", "notes",
        "part_rows", "scored", "withheld"],
    "semeval": ["Cells", "SemEval", "UTILITIES", "cell_members", "choice_credit", "documents", "has_documents",
        "mmlu_accuracy", "pooled_members", "task_aggregate"],
    "tables": ["compare_table", "to_html"],
    "text": ["ROUGE_CODES", "exact_match", "is_partly_unspaced", "is_repetitive", "rouge_1_f1", "rouge_1_recall",
        "rouge_l_f1", "rouge_l_recall", "word_tokens"],
    "tofu": ["Tofu", "answer_table", "oracle_quality", "utility_terms"],
    "truth": ["AGGREGATIONS", "check_aggregation", "forget_quality", "ks_log_p_value", "log10_forget_quality",
        "loss_scores", "normalised_probability", "truth_probability", "truth_ratio", "truth_score"],
})
