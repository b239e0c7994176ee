"""One pass of the model over the text, many sites at once: into a spool of rows, or straight to training."""

from diascope.harvest.live import LiveReader
from diascope.harvest.worker import Harvest, fingerprint, harvest

__all__ = ["Harvest", "LiveReader", "fingerprint", "harvest"]
