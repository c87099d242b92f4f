"""models"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "adapters": ["Adapter", "BESIDE", "FLOATS", "PLAIN", "RUNNING", "STARTS", "adapter_files", "adapter_hash",
        "add_lora", "check_floats", "check_kind", "lower_folders", "read_adapter"],
    "answers": ["PATIENCE", "answer_limit", "check_scored", "generate", "greedy", "left_padded", "sequence_nll",
        "virtual_prompt"],
    "attached": ["adapted", "adapted_layers", "adapter_hashes", "check_adapter", "check_tensors", "load_adapter",
        "merged", "own_weights", "save_adapter", "untie"],
    "bases": ["PRETRAINING", "PRETRAINING_SEEDS", "READER_RECIPE", "READER_SEEDS", "base_ingredients",
        "packed_base", "pretrain_tiny", "pretraining_rows", "reader_base", "start_of", "tiny_base", "trained_once"],
    "descent": ["check_trained", "descend", "diverged", "linear_rates", "shuffled_batches"],
    "formats": ["OPEN_UNLEARNING", "auto_template", "check_frame", "in_template", "other_template",
        "read_template"],
    "forward": ["AnswerBatch", "SCORE_ENTRIES", "answer_batch", "answer_batches", "answer_logits",
        "at_least_float32", "batch_logits", "check_positions", "decoder_layers", "eval_mode", "kept_outputs",
        "pad_right", "selected_logits", "sorted_batches", "virtual_tokens"],
    "load": ["BROKEN", "BUFFERS", "SMOLLM2", "STORED", "check_model", "check_speaks", "check_tokens", "load_model",
        "model_positions", "quiet_loading", "read_pretrained", "read_tokenizer", "save_model", "smollm2_package",
        "speechless", "torch_dtype"],
    "loss": ["RowsLoss", "loss_of", "mark_loss", "read_loss"],
    "memorisation": ["HUB_EPOCHS", "Recipe", "TINY_STEPS", "memorise", "memorise_into", "recipe_for"],
    "origin": ["model_identity", "training_key"],
    "precision": ["SMALL_TYPES", "bfloat16_gain", "check_trainable", "checkpoints_apart", "computes_in",
        "float32_sums", "passes_in", "quick_attention", "trained_in", "widen", "widened", "written_out"],
    "prepared": ["Given", "NO_ORACLE", "Prepared", "check_alike", "prepare", "prepare_one", "unprepared"],
    "provenance": ["FILE", "Origin", "WIDE", "base_weights", "check_biases", "check_origin", "check_unmerged",
        "found_base", "origin_of", "read_origin", "stored_base", "tensors_hash", "weights_hash", "write_origin"],
    "readiness": ["Preflight", "READ", "SAMPLED", "TOLERANCE", "preflight"],
    "sharded": ["Shards", "is_sharded", "placed_like"],
    "tiny": ["CHAT_TEMPLATE", "SPECIAL_TOKENS", "TINY_CONFIG", "TOKENIZER_SEED", "tiny_model", "tiny_tokenizer",
        "train_tokenizer"],
    "tokens": ["CUT_SHARE", "Cuts", "IGNORED", "Row", "count_cuts", "encode", "encode_prompt", "encode_rows",
        "end_tokens", "longest_row", "pad_id", "with_system"],
})
