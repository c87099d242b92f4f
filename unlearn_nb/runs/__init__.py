"""Study notebooks as checked, resumable runs that end in a report."""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "asked": ["Asked", "CHECKS", "bounds", "check_comment", "choices"],
    "course": ["END", "Event", "TAB", "course_of", "first_uses", "is_stage", "loops_by_stage", "named_pieces",
        "read_events", "repeats", "stage_names", "without_seeds"],
    "courses": ["ALIKE", "Course", "course_so_far", "foresight", "keep_course", "known_courses", "likeliest",
        "recorded_courses", "with_seeds"],
    "environment": ["describe_environment"],
    "estimate": ["Outlook", "kind_of", "misfit", "observed", "outlook", "paces", "stand_ins"],
    "execute": ["run_study"],
    "failures": ["KernelDied", "NoResult", "RunFailed", "explain", "last_started", "memory_kills", "why_dead",
        "with_room"],
    "jobs": ["MEMORY", "count_jobs", "end_workers", "one_thread", "side_by_side"],
    "kernel": ["CELL_MOST", "ECHO_MOST", "OUTPUTS_MOST", "OUTPUT_MOST", "STREAM_MOST", "ThisPython", "has_sockets",
        "run_notebook"],
    "keys": ["content_of", "held_by", "imported", "modules_key", "package_key", "path_key", "reached"],
    "model_files": ["ModelFiles", "OURS", "PATIENCE", "find_model", "in_folder", "near_miss", "read_config",
        "read_header", "weight_files"],
    "overview": ["RunInfo", "is_run", "list_runs", "read_run", "write_index"],
    "page": ["back_html", "front_html", "report_html", "study_title"],
    "parameters": ["AFTER_COLON", "AS_PATH", "BUDGETS", "check_parameters", "default_run_name", "read_duration"],
    "preflight": ["GROUP_LIMIT", "before_run"],
    "progress": ["EVERY", "Progress", "Starts", "in_a_line", "in_time"],
    "reading": ["read_all", "read_mapping", "read_start"],
    "report": ["PAGE_POLICY", "PAGE_SCRIPT", "PAGE_STYLE", "TEMPLATES", "facts_html", "render", "sanitized"],
    "results": ["begin_try", "complete", "found", "settle", "unfinished"],
    "stages": ["LAST_TRY", "PROGRESS_FILE", "Run", "peak_memory", "rebuilt_stages", "share_time", "stage_key"],
    "studies": ["Parameter", "find_studies", "find_study", "read_study", "study_parameters"],
    "summary": ["Number", "SUMMARY_FILE", "Summary", "read_summary", "write_summary"],
})
