"""What every package stands on: errors, files, things chosen by name, and what examples need."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cards": ["html_card", "html_rows", "html_text"],
    "code": ["Code", "HIDING", "STAGE", "Walk", "code_key", "read_code"],
    "display": ["Kept", "bounded", "shown", "without_escapes"],
    "errors": ["UnlearnError", "boundary", "brief", "first_line", "meaning", "shortened", "told", "unknown"],
    "examples": ["TOY_SIZES", "refused", "toy_adapter", "toy_llama", "toy_tokenizer"],
    "files": ["KEPT", "LEFT", "cache_dir", "checked_name", "content_hash", "filled", "flush", "from_json",
        "is_deeper", "move", "plain", "read_packaged", "remove", "slug", "sweep", "to_json", "to_jsonl", "whole",
        "write_atomic"],
    "finite": ["NonFinite", "check_finite", "check_likelihoods", "is_finite", "model_name"],
    "folders": ["LEFT_BY_LOOKING", "MANIFEST", "build_folder", "clear_damaged", "damage", "make_folder",
        "one_builder", "read_record", "seal", "set_aside", "sweep_built", "write_record"],
    "frames": ["Frame", "Written", "check_rendered", "frame_of", "write"],
    "identity": ["LARGE", "SETTLED", "file_hash", "folder_identity", "hash_files", "hub_commit", "own_slug",
        "path_hash", "remember_hash"],
    "instructions": ["ASIDE", "Import", "PACKAGE_FOLDER", "Source", "bytecode", "home_of", "imports_of", "is_named",
        "module_of", "names_mentioned", "names_read", "read_source", "whose"],
    "literature": ["Paper", "paper", "papers"],
    "locks": ["BEAT", "LEASE", "locked", "private_folder", "private_folder_of", "say_once", "take_lock"],
    "machine": ["pack_message", "peak_bytes", "tolerant_output"],
    "numbers": ["is_number", "is_whole", "spread"],
    "secrets": ["HANDED", "LEAST", "LONG", "MARK", "credentials", "handed_on", "known_secrets", "names_secret",
        "placeless", "redacted", "remember", "remember_written", "without_credentials"],
    "specs": ["FollowsCode", "Registry", "check_arguments", "check_length", "parse_expression", "read_call",
        "whose_code"],
    "steps": ["EVERY", "Steps", "count_steps_anew", "counted", "listen_to_steps", "pass_on_steps", "telling_steps"],
    "templates": ["TEMPLATE_DATE", "Template", "chat_program"],
    "texts": ["GRAPHEME", "folded", "is_blank", "is_unspaced", "squeezed", "stands_apart", "whole_word",
        "word_ends", "words"],
    "versions": ["COMPUTING", "HANDLING", "MODELLING", "torch_settings", "version_of", "versions_of"],
})
