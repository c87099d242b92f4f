"""influence"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "adapter_rows": ["check_erase", "own_training"],
    "attribution": ["ATTRIBUTIONS", "Attribution", "AttributionSettings", "Cosine", "GradientDot", "LossRows",
        "RandomScores", "SCORES_DAMPING", "as_attribution", "gradients_by_chunk", "query_loss", "scores"],
    "closed_forms": ["DataInf", "Gram", "Woodbury"],
    "conjugate_gradients": ["ConjugateGradients", "cg_path"],
    "curvature": ["Curvature", "PRODUCT_COST", "batch_product", "draw_targets", "gram_product", "scores_key"],
    "directions": ["Changes", "Directions", "HALF_FROM", "control_direction", "control_first", "request_direction"],
    "edit": ["Edit", "FIRST_LENGTH", "LEAST_COSINE", "choose", "scanned_scales"],
    "edit_job": ["EditJob", "EditSettings"],
    "erasing": ["CURVATURE_SHARE", "DAMPINGS", "LEAST_BUDGET", "erase", "erase_options"],
    "guarded": ["input_moments", "whitened", "within_divergence"],
    "kronecker_factors": ["Block", "EKFAC", "KroneckerFactors"],
    "llmeraser_loop": ["LLMEraserLoop"],
    "relinearised": ["HALF", "LEAST", "MOST", "PLENTY", "PULLING", "Path", "Turn", "UNIT", "first_step",
        "later_step", "relinearise", "scan"],
    "request": ["Request", "changed_rows", "training_rows"],
    "response": ["BregmanResponse", "CONVERGED", "bregman_response"],
    "row_gradients": ["captured_pass", "linear_captures", "row_gradients_of_batch"],
    "solvers": ["Damping", "FunctionSolver", "GRADIENT_STEP", "OfLargest", "Product", "SOLVERS", "Solution",
        "Solver", "as_solver", "check_damping", "drawing", "largest_eigenvalue", "mean_diagonal", "read_damping",
        "relative_residual", "solve", "solve_path"],
    "step_metric": ["METRICS", "MetricInputs", "Step", "adam", "ekfac", "gradient", "sign", "sum_and_squares"],
    "stochastic": ["GradientSteps", "Lissa"],
    "stored_scores": ["StoredScores"],
    "tasks": ["Batch", "CrossEntropy", "LanguageTask", "SquaredError", "TensorTask"],
    "unrolled": ["AdamWSteps", "SGDSteps", "STEPS", "UnrolledTraining", "metagradient", "query_losses",
        "smoothness", "unroll", "unrolled_scores"],
    "validation": ["FEW", "FROM_TRAINING", "Glances", "KEPT", "SLACK", "UNSEEN", "Validation", "make_validation",
        "row_losses", "swapped"],
    "weights": ["Cost", "TrainingLoss", "Weights", "linear_layer", "measuring"],
})
