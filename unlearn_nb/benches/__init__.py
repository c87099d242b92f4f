"""benches"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "biographies": ["ENTRY_SLOTS", "FIRST_NAMES", "LAST_NAMES", "OPENINGS", "Person", "RECORD_SLOTS", "SLOTS",
        "STORY_SLOTS", "Slot", "general_facts", "make_biographies"],
    "corruption": ["Change", "Corrupted", "corrupt_queries", "corrupt_responses"],
    "generic": ["generic_rows", "load_generic"],
    "load": ["Bench", "FEATURES", "FORMATS", "Format", "SIZES", "SPLITS", "Table", "as_dataset", "cap",
        "check_apart", "deal_parts", "deal_retain", "load_bench", "person_names", "read_json_rows",
        "subject_targets"],
    "recommendations": ["CATALOGUE", "GENRES", "Recommendations", "TASKS", "genre_of", "load_recommendations"],
})
