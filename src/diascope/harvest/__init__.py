"""One pass of the model over the text, many sites at once: into a spool of rows, through a bounded one, or straight to training."""

from diascope.harvest.bounded import BoundedReader, feed
from diascope.harvest.live import LiveReader
from diascope.harvest.worker import Harvest, fingerprint, harvest

__all__ = ["BoundedReader", "Harvest", "LiveReader", "feed", "fingerprint", "harvest"]
