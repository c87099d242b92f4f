"""localization"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "hits": ["CHANGE_SCORES", "Change", "Weights", "change_auc", "hits_at", "injection_regions", "localization_auc",
        "rank_auc"],
    "localizers": ["Activations", "Fisher", "GradientSize", "Intervention", "LOCALIZERS", "Localizer", "Material",
        "MemFlexUnits", "RandomUnits", "Wagle", "noised", "parse_localizer", "per_unit"],
    "supervision": ["match_mlps", "mlp_distance", "mlp_outputs"],
    "unit_scores": ["UnitScores", "localize", "score"],
})
