"""Judge dictionaries: fidelity on rows, loss through the model, and controls beside them, each number with its interval."""

from diascope.evals.run import Evaluation, evaluate
from diascope.evals.text import rows_of

__all__ = ["Evaluation", "evaluate", "rows_of"]
