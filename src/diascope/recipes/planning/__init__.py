"""What a recipe takes before it runs: operations, bytes, memory, hours and money, on one machine or many."""

from diascope.recipes.planning.calibrate import calibrate
from diascope.recipes.planning.fit import Mesh, fit
from diascope.recipes.planning.machine import H100, Machine
from diascope.recipes.planning.shape import GEMMA_3, Shape, shape_of
from diascope.recipes.planning.stages import Plan, document_rows, plan

__all__ = ["GEMMA_3", "H100", "Machine", "Mesh", "Plan", "Shape", "calibrate", "document_rows", "fit", "plan", "shape_of"]
