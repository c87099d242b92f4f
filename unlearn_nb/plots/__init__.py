"""Figures in one house style: a module a study, a function a figure."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "auditing": ["trap_effects_plot", "trap_sides_plot"],
    "comparing": ["attacks_heatmap", "pareto_plot", "ranks_heatmap", "unbeaten"],
    "erasing": ["EDGES", "TENTH", "WANTED", "effort_plot", "recovery_points", "sweep_plot"],
    "forgetting": ["forget_path_plot"],
    "localization": ["AXES", "LOG_P", "SCORES", "curve_plot", "overlap_heatmap", "paired_plot", "precision_plot",
        "region_label", "region_styles", "share_plot"],
    "merging": ["CHANGE_NAMES", "NORM_TITLES", "NOT_A_LOSS", "SPACES", "aggregate_bars", "angles_plot",
        "cells_heatmap", "density_sweep_plot", "loss_curves", "norms_plot", "tradeoff_plot", "trajectories",
        "with_oracle"],
    "reading": ["LEAST_SPAN", "caption_of", "captioned", "counted", "intervals_said", "listed", "metric_bars",
        "name_of", "rows_said", "score_axis", "seed_interval", "seeds_said"],
    "relearn": ["BOXED", "METRIC_LABELS", "attack_plot", "forgetting_bars", "lens_plot", "metric_label",
        "ratio_plot", "seesaw_plot", "tradeoff_kfr_krr"],
    "style": ["BLACK", "GREY", "LABELS", "LINES", "MARKERS", "METHODS", "PALETTE", "STYLE", "WIDTH", "checked",
        "edge_dash", "edge_dash_entry", "error_bars", "label_of", "line_styles", "named_tables", "outside_legend",
        "save_figure", "shade_interval", "styled", "use_style"],
})
