"""plots"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "eraser": ["EDGES", "TENTH", "WANTED", "effort_plot", "recovery_points", "sweep_plot"],
    "localization": ["AXES", "REGIONS", "curve_plot", "overlap_heatmap", "paired_plot", "precision_plot",
        "share_plot"],
    "relearn": ["BASELINE", "METRIC_LABELS", "attack_plot", "forgetting_bars", "lens_plot", "ratio_plot",
        "seesaw_plot", "tradeoff_kfr_krr"],
    "style": ["LABELS", "MARKERS", "PALETTE", "STYLE", "aggregate_bars", "angles_plot", "cells_heatmap",
        "density_sweep_plot", "loss_curves", "norms_plot", "save_figure", "tradeoff_plot", "trajectories",
        "use_style"],
})
