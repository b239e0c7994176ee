"""Dictionaries: the one Dictionary, its activations, and everybody's formats.

d = load_dictionary("path/to/folder")       # our artefact or a Gemma Scope 2 folder; the format is detected
latents = d.encode(x)                       # sparse; latents.dense() for all of them
y_hat = d.decode(latents, x)                # d(x) does both
"""

from diascope.dictionaries.activations import BatchTopK, JumpReLU, Matryoshka, TopK
from diascope.dictionaries.artefact import load_dictionary, save_dictionary
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig

__all__ = [
    "BatchTopK", "Dictionary", "DictionaryConfig", "JumpReLU", "Matryoshka", "TopK", "load_dictionary", "save_dictionary",
]  # fmt: skip
