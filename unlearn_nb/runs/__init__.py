"""runs"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "execute": ["RunFailed", "RunInfo", "execute_study", "list_runs", "read_run", "write_index"],
    "parameters": ["BUDGETS", "Parameter", "check_parameters", "default_run_name", "find_studies", "find_study",
        "read_study", "study_parameters"],
    "report": ["PACKAGE_FOLDERS", "PAGE_POLICY", "describe_environment", "facts_html", "report_html"],
    "stages": ["PACKAGE_FOLDER", "Run", "take_lock"],
})
