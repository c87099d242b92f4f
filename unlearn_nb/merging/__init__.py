"""merging"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "lowrank": ["Adapter", "adapter_inner", "adapter_norm", "balanced", "delta_inner", "delta_norm", "dense_svd",
        "factor_svd", "rank_for", "read_adapter", "stack_factors"],
    "merge": ["CONSENSUS", "METHODS", "MergeRecipe", "Merged", "SPARSIFIERS", "combine", "disjoint_mean",
        "disjoint_mean_by_count", "keep_all", "keep_largest", "keep_random", "match_scale", "merge_adapters",
        "merge_into", "weighted_sum"],
})
