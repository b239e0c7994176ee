"""One pass of the model over the text, many sites at once, into a spool of rows."""

from diascope.harvest.worker import Harvest, harvest

__all__ = ["Harvest", "harvest"]
