"""Rows of activations: written once by a harvest or made while they are asked for, read in windows by training."""

from diascope.activations.batches import WINDOW, Batches
from diascope.activations.codecs import CODECS
from diascope.activations.layout import Layout
from diascope.activations.mixing import Mixing, certificate
from diascope.activations.reader import RowReader
from diascope.activations.rows import Rows, Source, beside
from diascope.activations.writer import POLICIES, RowWriter

__all__ = [
    "CODECS", "POLICIES", "WINDOW", "Batches", "Layout", "Mixing", "RowReader", "RowWriter", "Rows", "Source", "beside", "certificate",
]  # fmt: skip
