"""Dictionaries: the one Dictionary, its choices, and everybody's formats.

d = load_dictionary("path/to/folder")       # our artefact or a Gemma Scope 2 folder; the format is detected
latents = d.encode(x)                       # sparse; latents.dense() for all of them
y_hat = d.decode(latents, x)                # d(x) does both
"""

from diascope.dictionaries.activations import BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, SampledMatryoshka, TopK
from diascope.dictionaries.artefact import load_dictionary, save_dictionary
from diascope.dictionaries.calibration import with_l0
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig, weights_hash
from diascope.dictionaries.site_maps import Causal, Joint, OneToOne

__all__ = [
    "BatchTopK", "Causal", "Dictionary", "DictionaryConfig", "Gated", "Joint", "JumpReLU", "Matryoshka", "OneToOne", "ReLU",
    "SampledMatryoshka", "TopK", "load_dictionary", "save_dictionary", "weights_hash", "with_l0",
]  # fmt: skip
