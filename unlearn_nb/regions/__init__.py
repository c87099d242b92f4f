"""Which weights training may change: regions as sets, masks, and the steps that hold to them."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "blocks": ["last_blocks"],
    "masked_step": ["MaskedStep", "group_loss"],
    "masks": ["Gradients", "MASKS", "Mask", "MemFlex", "Sure", "row_norms"],
    "region": ["Region", "SLICES", "check_share", "named_weights"],
    "region_step": ["RegionStep"],
    "repselect": ["Collapse", "CollapsedStep", "Directions", "POWERS", "collapse", "top_directions"],
    "units": ["UNITS", "UnitWeight", "down_projections", "expert_stacks", "inputs_first", "linear_layers",
        "model_blocks", "plain_name", "unit_weights"],
})
