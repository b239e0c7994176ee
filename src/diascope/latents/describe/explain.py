"""Ask a judge for a description: from examples (what a latent reads) or from output effects (what it does).

examples   training windows with the tokens marked on which the latent fires, the strongest first, with their activations
outputs    the tokens that it promotes and suppresses directly; no text is shown (Gur-Arieh et al. 2025, VocabProj)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from diascope.latents.describe.answers import said
from diascope.latents.describe.scorers.detection import numbered
from diascope.latents.describe.template import quoted
from diascope.latents.describe.windows import Examples

LONGEST = 200  # characters of a description
MAX_TOKENS = 100  # of the answer
KINDS = ("examples", "outputs")

FROM_EXAMPLES = """A feature inside a language model is active on the tokens marked <<like this>> in the texts below. The number before each text is how
strongly, from 0 to 10.

{texts}

What do the marked tokens, or the places where they stand, have in common? Be specific: say which words, and in which context. Answer with one
short line of at most twenty words, without a preamble, in this form:
Description: ..."""

FROM_OUTPUTS = """A feature inside a language model makes some next tokens more likely and others less.

More likely: {top}
Less likely: {bottom}

What does the feature make the model say? Be specific. Answer with one short line of at most twenty words, without a preamble, in this form:
Description: ..."""


def from_examples(examples: Examples) -> str:
    """The question about a latent's training windows."""
    most = max(w.peak for w in examples.train)
    texts = [f"({10 * w.peak / most:.0f}) {w.marked(w.fired)}" for w in examples.train]
    return FROM_EXAMPLES.format(texts=numbered(texts))


def from_outputs(top: Sequence[str], bottom: Sequence[str]) -> str:
    """The question about the tokens that a latent promotes and suppresses."""
    return FROM_OUTPUTS.format(top=", ".join(map(quoted, top)), bottom=", ".join(map(quoted, bottom)))


def description(answer: str) -> str:
    """The description in a judge's answer: one line, at most 200 characters; "" where it says nothing."""
    text = said(answer).encode("utf-8", "replace").decode()  # JSON can hold half a surrogate pair, files cannot
    marked = re.findall(r"(?im)^[\s*_>#-]*description[\s*_]*:[\s*_]*(.*)$", text)
    lines = [m for m in marked if m.strip()] or text.splitlines()
    line = next((" ".join(x.split()) for x in lines if any(c.isalnum() for c in x)), "")
    line = line.strip("*_` ").removeprefix("- ")
    if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'":
        line = line[1:-1]
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rsplit(" ", 1)[0] + "…"
