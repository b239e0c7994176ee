"""Windows written by hand: a latent that fires on the word "river", and judges that know it, or know nothing."""

import re

import numpy as np

from diascope.latents.describe.profile import Profile
from diascope.latents.describe.windows import Examples, Window

WORDS = "the old boat went down to sea and came back with salt fish for every house on hill".split()
IDS = {word: i + 10 for i, word in enumerate([*WORDS, "river"])}
TEXT = {i: f" {word}" for word, i in IDS.items()}


def window(words, document=0):
    """A window of these words; the latent fires on "river", the more strongly the later it stands."""
    values = np.array([(2.0 + i) * (w == "river") for i, w in enumerate(words)], np.float32)
    return Window(np.array([IDS[w] for w in words], np.int32), tuple(f" {w}" for w in words), values, document)


def made(positives=20, negatives=20, train=6, seed=0, latent=3):
    draw = np.random.default_rng(seed)

    def words(fires):
        out = draw.choice(WORDS, 12).tolist()
        if fires:
            out[int(draw.integers(12))] = "river"
        return out

    profile = Profile(np.array([IDS["river"]]), np.array([1.0]), np.array([IDS["the"]]), np.array([0.5]), TEXT.__getitem__)
    return Examples(
        latent,
        tuple(window(words(True), i) for i in range(train)),
        tuple(window(words(True), 100 + i) for i in range(positives)),
        tuple(window(words(False), 200 + i) for i in range(negatives)),
        profile,
        {IDS["river"]: 7.0},
    )


def lines(question):
    """The numbered texts of a question."""
    return re.findall(r"(?m)^\d+\. (.*)$", question)


def knowing(messages, max_tokens=0):
    """The right answer to any question, if the description (where there is one) is about rivers."""
    question = messages[0]["content"]
    if "what do the marked tokens" in question.lower():
        return "Description: the word river"
    if "does not belong" in question:
        (odd,) = [i for i, text in enumerate(lines(question), 1) if "<< river>>" not in text]
        return str(odd)
    knows = "river" in question.partition("Below")[0]
    if "How strongly" in question:
        found = [n for n, token in re.findall(r"(?m)^(\d+): '(.*)'$", question) if token == " river"]
        return "\n".join(f"{n}: 8" for n in found if knows) or "none"
    mark = "<< river>>" if "marked tokens" in question else "river"
    return str([i for i, text in enumerate(lines(question), 1) if knows and mark in text])
