"""The audited model: cases in; vectors at places, next-token log-probabilities and answers out, with or without edits.

A trial of an edit has to be cheap, because hundreds of controls stand behind one verdict:

1. Prompts are padded on the left, and all but their last `tail` tokens (what the template puts after the user's words) are
   computed once for the whole audit and kept as keys and values, where they end at the same token (models/prefixes.py).
2. A trial computes the tail anew under the edit, for R directions in one batch, and reads the last position. Blocks below the edit
   are not computed: what they give without it is kept for the lowest block of the last trial.

So an edit acts on the tail alone, in a trial and in the answer that is then written. A trial at a span inside the prompt (`spans`) does
the same with all from the span's first token on: longer, and edited at the span alone.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diascope.audits.cases import Case
from diascope.audits.operators import Counted, Intervention
from diascope.audits.spans import Prompt, prompt
from diascope.audits.texts import Heard
from diascope.config import within
from diascope.evals import kept
from diascope.models import Model, continuations
from diascope.models.prefixes import Prefixes
from diascope.sites import Site


@dataclass
class Target:
    """A chat model under audit. `batch` prompts are read together, and prompts times directions up to `rows` in a trial.

    Answers to prompts whose keys and values are kept are written `rows` at a time.
    """

    model: Model
    name: str = ""
    batch: int = 16
    rows: int = 64
    reference: Model | None = None  # the model that it was made from, where it is known
    heard: Heard | None = None  # is told every answer, where texts are kept

    def __post_init__(self) -> None:
        self.name = self.name or self.model.name
        within("batch", self.batch, 1, 2**20, "prompts")
        within("rows", self.rows, 1, 2**20, "prompts times directions")
        if not getattr(self.model.tokenizer, "chat_template", None):
            raise ValueError(f"{self.name} has no chat template: an audit asks a chat model, and this is a base model")

    @property
    def hash(self) -> str:
        """16 digits of the SHA-256 of the weights."""
        return kept.weights(self.model)[:16]

    @functools.cached_property
    def prefixes(self) -> Prefixes:
        """What was computed of the prompts up to their tails."""
        return Prefixes(self.model, batch=self.batch)

    @property
    def sites(self) -> list[Site]:
        """The residual stream after every block."""
        return [Site(layer, "resid_post") for layer in range(self.model.n_layers)]

    def prompts(self, cases: Sequence[Case]) -> list[Prompt]:
        """The cases as the model reads them."""
        return [prompt(self.model, c) for c in cases]

    def batches(self, prompts: Sequence[Prompt], most: int = 0) -> Iterator[list[int]]:
        """Numbers of prompts of like length, `most` (else `batch`) at a time."""
        order, most = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens)), most or self.batch
        for start in range(0, len(order), most):
            yield order[start : start + most]

    def vectors(self, prompts: Sequence[Prompt], sites: Sequence[Site], places: Sequence[str]) -> Tensor:
        """[n, sites, places, d] float32 on the processor; a place of several tokens is their mean.

        Where sites reach to the last block, what answers and scores need of these prompts is kept of the same pass.
        """
        widths = {self.model.width(site) for site in sites}
        if len(widths) != 1:
            raise ValueError(f"vectors at {', '.join(map(str, sites))} are of several widths: read these sites one by one")
        out = torch.empty(len(prompts), len(sites), len(places), widths.pop())
        tail = min((p.tail for p in prompts), default=0)
        for numbers in self.batches(prompts):
            rows = [list(prompts[i].tokens) for i in numbers]
            seen = self.prefixes.capture(rows, list(sites), [len(row) - tail for row in rows])
            for row, i in enumerate(numbers):
                where = [prompts[i].place(p) for p in places]
                for s, site in enumerate(sites):
                    out[i, s] = torch.stack([seen[site][row, w].float().mean(0) for w in where]).cpu()
        return out

    def generate(
        self, prompts: Sequence[Prompt], edits: Sequence[Intervention] = (), *, max_new_tokens: int = 16, where: str = "tail"
    ) -> list[str]:
        """The answers, greedily. Edits act on the prompt's tail (or `where="all"` of it) and on every decode step, asserted."""
        out = [""] * len(prompts)
        kept = where == "tail" and self.prefixes.usable(max((len(p.tokens) for p in prompts), default=0))
        for numbers in self.batches(prompts, max(self.batch, self.rows) if kept else 0):
            rows = [list(prompts[i].tokens) for i in numbers]
            mask, known = self._mask([prompts[i] for i in numbers], where), None
            if kept:
                first = mask.shape[1] - max(1, *(prompts[i].tail for i in numbers))
                tokens, attention = self.model.batch(rows, padding_side="left")
                mask, known = mask[:, first:], (first, self.prefixes.past(tokens[:, :first], attention[:, :first]))
            made, counters = _ready(edits, mask)
            new = continuations(
                self.model, rows, max_new_tokens=max_new_tokens, seeds=[0] * len(rows), temperature=0.0, edits=made, known=known
            )
            _check_steps(edits, counters, mask, len(rows), max_new_tokens, new)
            for i, ids in zip(numbers, new, strict=True):
                out[i] = self.model.tokenizer.decode(ids)
        if self.heard is not None:
            for p, answer in zip(prompts, out, strict=True):
                self.heard.add(p, answer, edits)
        return out

    def _mask(self, prompts: Sequence[Prompt], where: str) -> Tensor:
        """[B, T] of left-padded prompts: the positions that edits act on."""
        longest = max(len(p.tokens) for p in prompts)
        spans = [(longest - (p.tail if where == "tail" else len(p.tokens)), longest) for p in prompts]
        place = torch.arange(longest)
        return torch.stack([(place >= a) & (place < b) for a, b in spans])

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[Target | None]:
        """The model that this one was made from: the one that was given, or itself without its PEFT adapters; None otherwise."""
        if self.reference is not None:
            yield Target(self.reference, batch=self.batch, rows=self.rows)
        elif hasattr(self.model.module, "disable_adapter"):
            with self.model.module.disable_adapter():
                yield replace(self)  # nothing that was computed with the adapters
        else:
            yield None


class Tails:
    """Prompts of which all but the tail is computed once (see above); edits act on the tail.

    With `spans`, one slice of tokens a prompt, edits act on these tokens in the tail's stead, and all from the earliest of a batch on is
    computed anew.
    """

    def __init__(self, target: Target, prompts: Sequence[Prompt], spans: Sequence[slice] | None = None) -> None:
        self.target, self.prompts = target, list(prompts)
        self.tail = min(p.tail for p in self.prompts)
        assert self.tail > 0, "a template ends with tokens of its own"
        self._kept: list[tuple[list[int], Tensor, Tensor, Tensor, Any]] = []
        self._below: tuple[int, list[Any]] = (0, [])
        self._unembedding: Tensor | None = None
        for numbers in target.batches(self.prompts):
            tokens, attention = target.model.batch([list(self.prompts[i].tokens) for i in numbers], padding_side="left")
            mask = self._mask(numbers, None if spans is None else [spans[i] for i in numbers])
            new = mask.shape[1]
            past = target.prefixes.past(tokens[:, :-new], attention[:, :-new])
            self._kept.append((numbers, tokens[:, -new:], attention, mask, past))

    def _mask(self, numbers: Sequence[int], spans: Sequence[slice] | None) -> Tensor:
        """[B, new] of one batch, padded on the left: which of the tokens that are computed anew are edited."""
        if spans is None:
            return torch.ones(len(numbers), self.tail, dtype=torch.bool)
        lengths = [len(self.prompts[i].tokens) for i in numbers]
        ends = [(n - s.start, n - s.stop) for n, s in zip(lengths, spans, strict=True)]  # counted from the end
        assert all(a > b >= 0 for a, b in ends), "a span is empty, or reaches beyond its prompt"
        new = max(a for a, _ in ends)
        back = torch.arange(new, 0, -1)
        return torch.stack([(back <= a) & (back > b) for a, b in ends])

    @torch.no_grad()
    def read(
        self,
        function: Callable[[Tensor, list[int]], Tensor],
        edits: Sequence[Intervention] = (),
        *,
        repeats: int = 1,
    ) -> Tensor:
        """`function` of the next token's log-probabilities, stacked [n, repeats, ...]; repeat r has the edits' r-th direction.

        It is called with [rows, vocab] float32 and the number of each row's prompt, a batch at a time, and gives [rows, ...].
        """
        out: list[Tensor | None] = [None] * len(self.prompts)
        model = self.target.model
        first, below = self._stem(edits)
        for batch, (numbers, tokens, attention, mask, past) in enumerate(self._kept):
            grown = copy.deepcopy(past)
            if repeats > 1 and grown is not None:
                grown.batch_repeat_interleave(repeats)
            step, where = tokens.repeat_interleave(repeats, 0), mask.repeat_interleave(repeats, 0)
            made, counters = _ready(edits, where)
            with model.edit(*made):
                resume = (first, below[batch].repeat_interleave(repeats, 0)) if first else None
                hidden, _ = model.decode_step(step, attention.repeat_interleave(repeats, 0), grown, resume=resume)
            for edit, counted in counters:
                if edit.only is None:
                    counted.check([int(where.sum()) if "prompt" in edit.when else 0])
            log_p = self._logits(hidden).log_softmax(-1).cpu()
            found = function(log_p, [i for i in numbers for _ in range(repeats)])
            for row, i in enumerate(numbers):
                out[i] = found[row * repeats : (row + 1) * repeats]
        return torch.stack([o for o in out if o is not None])

    @functools.cached_property
    def clean(self) -> Tensor:
        """Log-probabilities of the next token without edits, [n, vocab]."""
        return self.read(lambda log_p, _: log_p)[:, 0]

    def _stem(self, edits: Sequence[Intervention]) -> tuple[int, list[Any]]:
        """The first block that `edits` reach, and what the one below it returns in each batch; (0, []) where all have to be computed."""
        model = self.target.model
        made, _ = _ready(edits, self._kept[0][3])
        first = min((at.layer + (at.kind == "resid_post") for e in made for at in (e.read, e.write)), default=0)
        first = min(first, model.n_layers - 1)  # one block has to run for the trunk to return in its own form
        if first == 0 or not model.resumes:
            return 0, []
        if self._below[0] != first:
            found = [model.step_output(t, a, copy.deepcopy(past), first - 1) for _, t, a, _, past in self._kept]
            self._below = (first, found)
        return self._below if all(isinstance(x, Tensor) for x in self._below[1]) else (0, [])

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states [B, d_model] in float32: a bfloat16 product would round those near 20 to eighths."""
        model, head = self.target.model, self.target.model.parts.unembedding
        if self._unembedding is None:
            self._unembedding = model.unembedding.float()
        product = hidden.float() @ self._unembedding.t()
        bias = getattr(head, "bias", None)
        return model.scaled_logits(product if bias is None else product + bias.float())


def _ready(edits: Sequence[Intervention], mask: Tensor) -> tuple[list[Any], list[tuple[Intervention, Counted]]]:
    made, counters = [], []
    for edit in edits:
        own, counted = edit.edits(mask)
        made += own
        counters += [(edit, c) for c in counted]
    return made, counters


def _check_steps(
    edits: Sequence[Intervention],
    counters: Sequence[tuple[Intervention, Counted]],
    mask: Tensor,
    rows: int,
    most: int,
    new: Sequence[Sequence[int]],
) -> None:
    """Every pass of a generation was edited: the prompt's, and one for each token that followed."""
    if not edits:
        return
    longest = max(len(ids) for ids in new)
    passes = min(most, longest + 1)  # the last pass of a row gives the token that ends it
    for edit, counted in counters:
        if edit.only is None:
            prompt = int(mask.sum()) if "prompt" in edit.when else 0
            step = rows if "response" in edit.when else 0
            counted.check([prompt, *[step] * (passes - 1)])
        else:
            assert len(counted.positions) == passes, f"{counted.label} ran in {len(counted.positions)} of {passes} passes"
