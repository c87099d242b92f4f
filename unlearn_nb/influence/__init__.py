"""influence"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "curvature": ["Batch", "Cost", "CrossEntropy", "Curvature", "LanguageTask", "PRODUCT_COST", "SquaredError",
        "TensorTask", "TrainingLoss", "Weights", "batch_product", "draw_targets", "gram_product", "linear_captures",
        "measuring", "row_gradients_of_batch"],
    "edit": ["DAMPINGS", "Edit", "Request", "changed_rows", "check_adapter", "choose", "erase", "load_adapter",
        "training_rows"],
    "ekfac": ["Block", "KroneckerFactors"],
    "response": ["BregmanResponse", "bregman_response"],
    "solvers": ["Product", "SOLVERS", "Solution", "cg", "cg_path", "check_damping", "datainf", "faithful",
        "largest_eigenvalue", "lissa", "mean_diagonal", "relative_residual", "sgd", "solve", "solve_path", "solver",
        "woodbury"],
})
