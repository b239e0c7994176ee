"""Indices in the layouts of others: Neuronpedia's bulk files and SAEDashboard's batches, out and in. Needs no torch.

Flow: Index -> rows (rows.py, under their ids: ids.py) -> bulk files (bulk.py) or batches (dashboards.py), a file at a time;
and back: files (bulk_in.py, dashboards.py) -> stage on disk (stage.py) -> index (rebuild.py). Meaning, and what is lost: docs/neuronpedia.md.
"""

from diascope.latents.exchange.bulk import write_bulk
from diascope.latents.exchange.bulk_in import read_bulk
from diascope.latents.exchange.dashboards import read_dashboards, write_dashboards

__all__ = ["read_bulk", "read_dashboards", "write_bulk", "write_dashboards"]
