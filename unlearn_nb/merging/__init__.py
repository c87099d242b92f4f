"""merging"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "flattened": ["flatten_adapter"],
    "into_model": ["merge_into"],
    "lowrank": ["adapter_inner", "adapter_norm", "balanced", "core_bases", "delta_inner", "delta_norm", "dense_svd",
        "factor_svd", "rank_for", "stack_factors"],
    "merge": ["merge_adapters"],
    "merged": ["MergeRecipe", "Merged", "SPACES", "check_place", "match_scale"],
    "methods": ["MERGE_METHODS", "SparseConsensus", "breadcrumbs", "breadcrumbs_ties", "combine", "della",
        "della_linear", "disjoint_mean", "disjoint_mean_by_count", "in_peft", "is_linear", "keep_by_rank",
        "keep_largest", "keep_middle", "keep_random", "merges_updates_only", "rotates", "rotation_of", "slerp",
        "weighted_sum"],
    "negation": ["PERTA_MEASURES", "PerTA", "negate", "perta", "perta_share"],
    "spectral": ["iso_c", "iso_cts", "knots", "negmerge", "tsv"],
})
