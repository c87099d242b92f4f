"""The command `unlearn-nb`: run a study, list what there is, show a run."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "attributing": ["lds"],
    "comparing": ["compare", "compared_metrics", "differing_params"],
    "estimating": ["as_lines", "estimate", "in_bytes"],
    "forgetting": ["forget"],
    "group": ["COMMANDS", "give_up_stdout", "main", "out_option", "relative", "stopped_by_signals"],
    "looking": ["MAIN", "as_table", "find_run", "list_all", "show"],
    "making": ["new", "write_template"],
    "product": ["chat", "device_option", "export", "verify"],
    "running": ["OfStudy", "carry_out", "given_parameters", "run", "tell_report"],
    "sweeping": ["sweep"],
})
