"""augmentation"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "augmenter": ["AUGMENTED_FEATURES", "Augmented", "REFUSALS", "augment", "mix", "private_values", "refusals"],
    "authors": ["Author", "PLACEHOLDERS", "Piece", "PromptedAuthor", "RULES", "STOP_WORDS", "TemplateAuthor",
        "VARIANTS", "fact_verdicts", "holds", "identifiers", "load_prompts", "read_verdict", "word_verdicts"],
    "endpoint": ["EndpointWriter", "LONGEST_PAUSE"],
    "load": ["load_writer"],
    "model_writer": ["ModelWriter"],
    "scoring_model": ["READING", "scorer_rows", "tiny_scorer"],
    "writers": ["CachedWriter", "Writer", "ask"],
})
