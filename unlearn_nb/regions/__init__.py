"""regions"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "masks": ["Gradients", "MASKS", "Mask", "MaskedStep", "MemFlex", "Sure", "parse_mask", "part_loss",
        "row_norms"],
    "region": ["Region", "SLICES", "UNITS", "UnitWeight", "check_share", "down_projections", "linear_layers",
        "model_blocks", "named_weights", "plain_name", "unit_weights"],
    "step": ["RegionStep"],
})
