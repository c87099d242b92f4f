"""What is forgotten, what is kept, and what is measured: invented people, published datasets, data of one's own."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "bench": ["Bench", "FEATURES", "PARTS", "SIZES", "SPLITS", "as_dataset", "text_problem"],
    "biographies": ["Fact", "POOLS", "Person", "SLOTS", "Slot", "make_biographies"],
    "columns": ["CHATS", "PAIRS", "own_table", "read_own_rows"],
    "corruption": ["Change", "Corrupted", "corrupt_queries", "corrupt_responses"],
    "deal": ["cap", "deal_parts", "deal_retain", "deal_splits", "subject_targets"],
    "formats": ["Format", "check_texts", "dealt_bench", "given_part", "given_text", "read_tables", "template_of",
        "unlike"],
    "general": ["general_facts"],
    "generic": ["generic_rows", "load_generic"],
    "load": ["BENCHES", "embedded_bench", "load_bench"],
    "muse": ["LEAD", "MUSE", "PIECE", "muse_format", "muse_rows", "muse_shots", "muse_table", "pieces", "text_row"],
    "names": ["main_names", "person_names"],
    "own": ["JSONL", "jsonl_rows", "jsonl_told", "own_bench"],
    "published": ["FORMATS", "KNOWUNDO", "LUME", "in_published_order", "knowundo_rows", "lume_rows", "tofu_format",
        "tofu_names", "tofu_rows", "tofu_told"],
    "recommendations": ["CATALOGUE", "GENRES", "RECOMMENDATION_PARTS", "Recommendations", "TASKS", "genre_of",
        "load_recommendations"],
    "tables": ["ENDINGS", "Table", "check_apart", "read_hub", "read_json_rows", "read_rows"],
    "twins": ["NEAR", "connected", "group_rows", "near_pairs", "plain_text", "row_text", "same_key", "shingles"],
})
