"""What every package stands on: errors, files, things chosen by name, and what examples need."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "code": ["PACKAGE_FOLDER", "bytecode", "code_key", "whose"],
    "errors": ["UnlearnError", "first_line", "unknown"],
    "examples": ["TOY_SIZES", "refused", "toy_adapter", "toy_llama", "toy_tokenizer"],
    "files": ["build_folder", "cache_dir", "checked_name", "content_hash", "from_json", "plain", "read_packaged",
        "slug", "to_json", "to_jsonl", "whole", "write_atomic"],
    "finite": ["NonFinite", "check_finite", "check_likelihoods", "is_finite", "model_name"],
    "frames": ["Frame", "Written", "check_rendered", "frame_of", "write"],
    "identity": ["LARGE", "SETTLED", "file_hash", "folder_identity", "hash_files", "hub_commit", "own_slug",
        "path_hash"],
    "numbers": ["is_number", "is_whole"],
    "specs": ["FollowsCode", "Registry", "check_arguments", "parse_expression", "read_call", "whose_code"],
    "templates": ["TEMPLATE_DATE", "Template"],
    "texts": ["folded", "is_blank", "is_unspaced", "squeezed", "stands_apart", "whole_word", "word_ends", "words"],
})
