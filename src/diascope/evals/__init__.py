"""Judge dictionaries: fidelity on rows, loss through the model, and controls beside them, each number with its interval."""

from diascope.evals.latent_scaling import LatentScaling, latent_scaling
from diascope.evals.moved import Moved, moved
from diascope.evals.paired import Series, difference
from diascope.evals.run import Evaluation, evaluate
from diascope.evals.text import rows_of

__all__ = ["Evaluation", "LatentScaling", "Moved", "Series", "difference", "evaluate", "latent_scaling", "moved", "rows_of"]
