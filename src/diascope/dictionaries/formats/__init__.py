"""Everybody's formats: one table, from which load_dictionary, save_dictionary, `convert` and `inspect` work.

A new format is one file with a FORMAT, and its entry here. The order is that of detection: formats whose marks are plain
come before those that are guessed from file names.
"""

from diascope.dictionaries.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope_1,
    gemma_scope_2,
    llamascopium,
    own,
    saelens,
    sparsify,
)
from diascope.dictionaries.formats.format import Fidelity, Format, Hints

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        own.FORMAT,
        gemma_scope_2.FORMAT,
        saelens.FORMAT,
        sparsify.FORMAT,
        llamascopium.FORMAT,
        dictionary_learning.FORMAT,
        circuit_tracer.FORMAT,
        gemma_scope_1.FORMAT,
    )
}

__all__ = ["FORMATS", "Fidelity", "Format", "Hints"]
