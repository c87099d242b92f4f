"""Study notebooks as checked, resumable runs that end in a report."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "environment": ["describe_environment"],
    "execute": ["RunFailed", "run_study"],
    "kernel": ["CELL_MOST", "ECHO_MOST", "OUTPUTS_MOST", "OUTPUT_MOST", "STREAM_MOST", "run_notebook"],
    "keys": ["ASIDE", "content_of", "held_by", "imported", "modules_key", "package_key", "path_key", "reached"],
    "overview": ["RunInfo", "list_runs", "read_run", "write_index"],
    "parameters": ["AFTER_COLON", "AS_PATH", "BUDGETS", "check_parameters", "default_run_name"],
    "report": ["PAGE_POLICY", "TEMPLATES", "facts_html", "render", "report_html", "without_scripts"],
    "stages": ["Run", "peak_memory", "stage_key"],
    "studies": ["Parameter", "find_studies", "find_study", "read_study", "study_parameters"],
})
