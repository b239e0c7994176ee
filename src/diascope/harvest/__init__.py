"""One pass of the model over the text, many sites at once, into a spool of rows."""

from diascope.harvest.worker import Harvest, fingerprint, harvest

__all__ = ["Harvest", "fingerprint", "harvest"]
