"""Rows of activations on disk: written once by a harvest, read in any order by training."""

from diascope.activations.rows import RowReader, Rows, RowWriter, beside

__all__ = ["RowReader", "RowWriter", "Rows", "beside"]
