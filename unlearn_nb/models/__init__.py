"""models"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "answers": ["SCORE_ENTRIES", "generate", "sequence_nll", "sorted_batches"],
    "load": ["CHAT_TEMPLATE", "IGNORED", "SMOLLM2", "SPECIAL_TOKENS", "TINY_CONFIG", "TOKENIZER_SEED",
        "decoder_layers", "encode", "encode_prompt", "kept_outputs", "load_model", "pad_right", "quiet_loading",
        "selected_logits", "smollm2_package", "tiny_model", "tiny_tokenizer", "torch_dtype", "train_tokenizer"],
    "memorisation": ["HUB_EPOCHS", "PRETRAINING", "PRETRAINING_SEEDS", "Prepared", "Recipe", "TINY_STEPS",
        "memorise", "prepare", "prepare_one", "recipe_for", "shuffled_batches", "tiny_base"],
})
