"""From a dictionary of plain text to one of a chat model's conversations, and what moved on the way.

1. The model answers prompts by sampling (tokens/rollouts.py); one in ten conversations is held out.
2. One group on the same batches: `tuned` starts from the given dictionary, `scratch` from noise.
3. Four are judged on held-out conversations: `unchanged`; `thresholds` (unchanged but for thresholds set again on
   conversations, to the same target L0); `tuned`; `scratch`.
4. <workspace>/report.json: their numbers, tuned minus each of the others on the same tokens, and what moved (evals/moved.py).
5. <workspace>/index: `tuned` and `scratch` on the conversations that they were trained on, for `diascope explore`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from diascope.config import to_data, within
from diascope.dictionaries import BatchTopK, Dictionary, JumpReLU, load_dictionary, with_l0
from diascope.dictionaries.artefact import write_card
from diascope.evals import Evaluation, difference, moved
from diascope.evals.run import check_fits
from diascope.evals.text import EvalText
from diascope.models import ROLES, Model
from diascope.recipes.gemma_scope_2 import scaled
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run, Stage, opened_model, quiet
from diascope.recipes.texts import OWN
from diascope.storage.files import check_target, finite, read_json, write_json
from diascope.tokens import Rollouts, open_corpus, pack, rollouts, split
from diascope.training import MemberRecipe

CONTEXT = 512  # tokens a packed sequence; a longer conversation is cut


@dataclass(frozen=True)
class ChatTuning:
    """How a dictionary is fine-tuned on conversations."""

    model: str = "smollm2-135m-instruct"
    """The chat model: package alias, GGUF file, folder or hub id."""
    rollouts: Rollouts = field(default_factory=Rollouts)
    """Its conversations."""
    conversations: str = ""
    """A file of conversations to use as they are (jsonl, `messages` a line) instead of sampling."""
    epochs: float = 2.0
    """Passes over their rows."""
    eval_tokens: int = 16_384
    """Tokens of held-out conversations for L0, FVU and density."""
    ce_tokens: int = 8_192
    """Tokens of them for CE and KL."""
    seed: int = 0
    """Seed of the starting weights and of the order of rows."""

    def __post_init__(self) -> None:
        within("epochs", self.epochs, 1e-6, 1e6)
        for name in ("eval_tokens", "ce_tokens"):  # said now, not after an hour of sampling
            within(name, getattr(self, name), CONTEXT, 2**60, "tokens, at least one sequence")


@dataclass(frozen=True)
class Tuned:
    """What a chat fine-tuning gave."""

    dictionaries: dict[str, Dictionary]
    evaluations: dict[str, Evaluation]
    report: dict[str, Any]


def chat(dictionary: str, config: ChatTuning, workspace: str | Path, *, stage: Stage = quiet) -> Tuned:
    """Fine-tune `dictionary` (a folder of any format, or another name) on the chat model's own conversations.

    Interrupted, the same call goes on. Raises ValueError where the dictionary has no thresholds, where the model has no chat
    template, or where the workspace holds another run.
    """
    base, workspace = load_dictionary(dictionary), Path(workspace)
    if not isinstance(base.config.activation, JumpReLU):
        kind = type(base.config.activation).__name__
        raise ValueError(f"fine-tuning on conversations takes JumpReLU dictionaries, and this {base.config.title} is {kind}")
    _member(
        base, dictionary, max(1, round(base.config.l0_target or 1))
    )  # what cannot be trained is refused before anything is sampled
    _check_workspace(workspace)
    model = opened_model(config.model, "auto", stage)
    check_fits(model, dictionary, base)  # said now, not after an hour of sampling
    source = config.conversations
    if not source:
        say = stage("rollouts", "conversations")
        path = rollouts(model, config.rollouts, workspace / "rollouts", progress=say)
        if (n := len(path.read_text(encoding="utf-8").splitlines())) < config.rollouts.count:
            say(n, n, f"health: {config.rollouts.prompts} has {n} prompts for {config.rollouts.count} conversations")
        source = f"{OWN}{path.relative_to(workspace)}"
    recipe = _recipe(config, base, dictionary, model, source, workspace)
    run = Run(recipe, workspace, stage, model=model)
    run.train()
    if run.failed:
        raise RuntimeError("; ".join(f"{name} {why}" for name, why in run.failed.items()))
    rows = run.calibration_rows()
    found = {"unchanged": base, "thresholds": with_l0(base, base.inputs(rows), recipe.training.members[0].l0_target)}
    found |= {n: load_dictionary(run.folder(n)) for n in run.names}
    evaluations = run.judge(found)
    for name in run.names:
        write_card(run.folder(name), evaluations[name].card())
    report = finite(_report(run, found, evaluations))
    write_json(workspace / "report.json", report)
    run.index()
    return Tuned(found, evaluations, report)


def _check_workspace(workspace: Path) -> None:
    path = workspace / "recipe.json"
    check_target(workspace / "x")
    if path.exists() and read_json(path).get("recipe", {}).get("name") != "chat":
        raise ValueError(f"{workspace} holds another kind of run: choose another --workspace")


def _member(base: Dictionary, name: str, k: int) -> MemberRecipe:
    """Of the base's shape, at `k` active latents."""
    c = base.config
    return MemberRecipe(
        "tuned", c.sites_in, c.sites_out, c.map, c.d_sae, BatchTopK(k), c.matryoshka, c.skip, start=name, l0_target=float(k)
    )


def _recipe(config: ChatTuning, base: Dictionary, name: str, model: Model, source: str, workspace: Path) -> RunRecipe:
    place = source.replace(OWN, f"{workspace}/", 1) if source.startswith(OWN) else source
    corpus = open_corpus(place, field="messages")
    if not all(d.messages for d in corpus.documents):
        raise ValueError(f'{source} holds plain text: give a jsonl file with "messages" in each line')
    plan = RunRecipe(scaled((MemberRecipe("any"),), CONTEXT), context=CONTEXT)  # for its hold-outs
    train, _ = split(corpus, held_out=plan.held_out, seed=plan.seed)
    sequences = pack(model, train, context=CONTEXT, max_tokens=2**40, seed=plan.seed)
    seen = EvalText(model, sequences.part(0, 8)).capture(list(base.sites))
    # at the base's own target L0, or where its format does not say, the L0 that it has on conversations
    k = base.config.l0_target or float(base.encode(base.inputs(seen)).counts.float().mean())
    tuned = _member(base, name, max(1, round(k)))
    members = (tuned, replace(tuned, name="scratch", start=()))
    tokens = sequences.tokens.size
    training = replace(scaled(members, tokens, epochs=config.epochs), seed=config.seed)
    return replace(
        plan, training=training, name="chat", model=config.model, corpus=source, field="messages", tokens=tokens, controls=False,
        eval_corpus="held-out", eval_tokens=config.eval_tokens, ce_tokens=config.ce_tokens,
    )  # fmt: skip


def _report(run: Run, found: dict[str, Dictionary], evaluations: dict[str, Evaluation]) -> dict[str, Any]:
    ours = evaluations["tuned"].series["dictionary"]
    pairs = {n: difference(ours, e.series["dictionary"]) for n, e in evaluations.items() if n != "tuned"}
    text = EvalText(run.model, run.texts.evaluation)
    seen = text.capture(list(found["tuned"].sites))
    roles = run.texts.evaluation.role
    spoken = roles[text.rows.numpy()] if roles is not None else np.zeros(len(text.documents), np.int8)
    what = moved(
        found["thresholds"],
        found["tuned"],
        found["tuned"].inputs(seen),
        found["tuned"].targets(seen),
        text.documents,
        {ROLES[r]: spoken == r for r in np.unique(spoken)},
    )
    return {
        "schema": "diascope-chat-1",
        "config": to_data(run.recipe),
        "evaluations": {n: e.card() for n, e in evaluations.items()},
        "tuned_minus": {n: {m: asdict(v) for m, v in pair.items()} for n, pair in pairs.items()},
        "moved": what.report(),
    }
