"""Research on unlearning in language models."""

import warnings

__version__ = "0.1.0"

# Without ipywidgets tqdm shows its plain bar, which a terminal and a report can show, too; that is meant, and needs no warning.
warnings.filterwarnings("ignore", message="IProgress not found")
