"""localization"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "change_scores": ["CHANGE_SCORES", "Change", "Weights", "change_auc"],
    "intervention": ["Intervention", "objective_gradient"],
    "known_regions": ["injection_regions", "localization_auc", "precision_recall", "precision_recall_at",
        "rank_auc"],
    "localizers": ["Activations", "Fisher", "GradientSize", "LOCALIZERS", "MemFlexUnits", "RandomUnits", "Wagle",
        "noised"],
    "material": ["Localizer", "Material", "per_unit"],
    "supervision": ["match_mlps", "mlp_distance", "mlp_outputs"],
    "unit_scores": ["UnitScores", "check_scores", "localize", "score_units"],
})
