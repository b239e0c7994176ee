"""Text to token sequences: corpora, packing with document boundaries, and documents held out by hash."""

from diascope.tokens.corpora import Corpus, Document, open_corpus
from diascope.tokens.packing import Sequences, pack, split
from diascope.tokens.rollouts import Rollouts, rollouts
from diascope.tokens.rows import stream_rows

__all__ = ["Corpus", "Document", "Rollouts", "Sequences", "open_corpus", "pack", "rollouts", "split", "stream_rows"]
