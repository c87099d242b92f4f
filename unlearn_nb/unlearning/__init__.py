"""unlearning"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "batches": ["Batcher", "Plan", "Reference", "Row", "can_share_lines", "compute_reference", "encode_rows",
        "fill_lines", "forward_terms", "lay_out", "schedule"],
    "trainer": ["History", "SETTINGS", "UnlearnSettings", "UnlearnTrainer", "make_trainer", "unlearn"],
})
