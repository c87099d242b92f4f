"""augmentation"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "alternative": ["WISH", "alternate_problem", "alternates"],
    "augmented": ["AUGMENTED_FEATURES", "Augmented", "DROPPED_COLUMNS", "augmented_dataset", "pair_rows",
        "rows_by_id"],
    "augmenter": ["augment"],
    "authors": ["Author", "PLACEHOLDERS", "PromptedAuthor", "VARIANTS", "load_prompts"],
    "endpoint": ["EndpointWriter", "LARGEST_ANSWER", "LONGEST_PAUSE", "LONGEST_TRIES"],
    "leaks": ["Piece", "RULES", "STOP_WORDS", "fact_verdicts", "holds", "identifiers", "own_values", "plain_words",
        "private_values", "read_verdict", "word_verdicts"],
    "load": ["load_writer", "writer_identity"],
    "mixtures": ["REFUSALS", "mix", "refusals"],
    "model_writer": ["ModelWriter", "sample_texts"],
    "rules": ["RuleAuthor", "topics"],
    "scoring_model": ["SCORING_RECIPE", "scoring_rows", "tiny_scoring_model"],
    "templates": ["TemplateAuthor", "typing_errors"],
    "writers": ["CachedWriter", "Writer", "ask"],
})
