"""What the tutorials run on: the demo's workspace and real models, or a random toy that takes seconds.

The environment variable DIASCOPE_TUTORIAL chooses:

    (unset)        `workspace` in this folder or the one above, as `make demo` leaves it; real models
    a folder       that workspace in its place
    toy            a random model of four layers and a workspace made of it: for tests, and to see whether a notebook runs
"""

from __future__ import annotations

import functools
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diascope.audits import CaseSet
    from diascope.models import Model

VARIABLE = "DIASCOPE_TUTORIAL"
TOY = "toy"
MOST_CASES = 72
WORDS = ("river", "town", "road", "bridge", "field", "harbour", "the", "of", "a", "in", "old", "new", "stands", "runs", "meets")


def toy() -> bool:
    """Whether the toy was asked for."""
    return os.environ.get(VARIABLE) == TOY


def workspace() -> Path:
    """The workspace to look at. Raises ValueError, with the command that makes one, where there is none."""
    if toy():
        return _toy_workspace()
    given = os.environ.get(VARIABLE)
    places = [Path(given)] if given else [Path("workspace"), Path("..") / "workspace"]
    for place in places:
        if (place / "index" / "index.json").is_file():
            return place
    raise ValueError(
        f'there is no workspace {places[0].absolute()}: `make demo ARGS="--tokens 30000"` makes one in minutes, `make demo` a better '
        f"one; or set {VARIABLE} to the folder of another, or to {TOY!r}"
    )


def toy_run() -> tuple[str, str, str, int, int, int]:
    """(model, text, site, tokens, width, L0) of a run that takes seconds: a toy's folder, and a text of random words."""
    from diascope import rng
    from diascope.models.toy import toy_model

    folder, model = _folder() / "toy", toy_model()
    text = folder / "text.txt"
    if not text.exists():
        model.module.save_pretrained(folder / "model")
        model.tokenizer.save_pretrained(folder / "model")
        random = rng.generator(0, "tutorial")
        lines = (" ".join(random.choice(WORDS, 18)) for _ in range(120))
        text.write_text("\n\n".join(f"{line.capitalize()}." for line in lines), encoding="utf-8")
    return str(folder / "model"), str(text), "L2.resid_post", 4096, 64, 6


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="diascope-tutorial-"))


@functools.cache
def _toy_workspace() -> Path:
    from diascope.recipes.gemma_scope_2 import small
    from diascope.recipes.recipe import RunRecipe
    from diascope.recipes.run import Run

    model, text, site, tokens, width, l0 = toy_run()
    training = small(((site, site),), d_sae=width, l0=l0, tokens=tokens, epochs=2)
    recipe = RunRecipe(
        training, name="tutorial", model=model, corpus=text, tokens=tokens, eval_corpus="held-out",
        context=64, eval_tokens=2048, ce_tokens=512, calibration_tokens=1024, index_tokens=tokens,
    )  # fmt: skip
    Run(recipe, _folder() / "workspace").carry_out()
    return _folder() / "workspace"


def toy_chat(cases: CaseSet) -> tuple[Model, CaseSet]:
    """A random model with a chat template, and those of `cases` whose choices begin with different letters, its tokens."""
    from diascope.models.toy import toy_model

    model = toy_model("llama", max_position_embeddings=1024)
    model.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    bare = (replace(c, choices=tuple(x.strip() for x in c.choices), answer=c.answer.strip()) for c in cases.cases)
    told = (c for c in bare if len({x[0] for x in c.choices}) == len(c.choices))
    return model, replace(cases, cases=tuple(told)[:MOST_CASES])
