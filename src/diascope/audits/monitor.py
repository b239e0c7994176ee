"""A monitor: a readout of an audit in a small file, with a threshold that was frozen on validation cases.

    monitor = make_monitor(target, PROTOCOLS["refusal"])          the readout that the audit of the same seed chooses
    monitor.save("refusal.json"); monitor = Monitor.load("refusal.json")
    for seen in monitor.watch(model, "Write a rude letter"): print(seen.text, seen.score, seen.flagged)

1. The readout is chosen as in every audit (readouts.py): fitted on training cases, best AUROC on validation cases.
2. Threshold: the lowest with which at most `false` of the negative validation cases lie above it, half-way to the next score above.
3. On test cases, once: the share of negative cases above it (false alarms) and of positive ones (found), with Wilson's intervals.

A score of a token is readout . vector + bias. A readout that was made at one place (the last token of a template, the mean of a
sentence) says less at others: the file says where its threshold was frozen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.audits import detect, readouts, statistics
from diascope.audits.cases import CaseSet
from diascope.audits.protocol import Protocol
from diascope.audits.readouts import Readout
from diascope.audits.spans import MEAN
from diascope.audits.target import Target
from diascope.edits import Edit
from diascope.evals import kept
from diascope.models import Model
from diascope.models.generation import ending_tokens
from diascope.sites import Site
from diascope.storage.files import read_json, write_json

FORMAT = "diascope-monitor-1"
FALSE = 0.05  # negative validation cases that may lie above the threshold


@dataclass(frozen=True)
class Seen:
    """One token under watch; `given` where it is the prompt's."""

    token: int
    text: str
    score: float
    flagged: bool
    given: bool


@dataclass(frozen=True)
class Monitor:
    """score = vector . direction + bias at `site`; flagged above `threshold`."""

    protocol: str
    model: str
    model_sha256: str
    site: str
    place: str
    kind: str
    direction: tuple[float, ...]
    bias: float
    threshold: float
    cases_sha256: str
    seed: int
    rates: dict[str, Any] = field(default_factory=dict)  # split -> {false alarms, found}

    @property
    def hash(self) -> str:
        """16 digits of the SHA-256 of everything that a score depends on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write the file, atomically."""
        write_json(path, {"format": FORMAT, "hash": self.hash, **asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> Monitor:
        """The monitor in a file. ValueError for another format, or a file that was changed by hand."""
        data = read_json(path)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"{path} is no monitor ({FORMAT}): write one with `diascope audit monitor`")
        said = data.get("hash")
        given: dict[str, Any] = {k: v for k, v in data.items() if k not in ("format", "hash")}
        try:
            found = cls(**{**given, "direction": tuple(given["direction"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is no whole monitor ({error}): write one with `diascope audit monitor`") from error
        if found.hash != said:
            raise ValueError(
                f"{path} was changed since it was written (hash {said}, now {found.hash}): its threshold is not the frozen one"
            )
        return found

    def check(self, model: Model) -> None:
        """ValueError where `model` is not the one that the threshold was frozen on."""
        if (found := kept.weights(model)[:16]) != self.model_sha256:
            raise ValueError(
                f"the monitor was made on {self.model} ({self.model_sha256}), this is {model.name} ({found}): make one on this model"
            )

    def score(self, vectors: Tensor) -> np.ndarray:
        """[...] of vectors [..., d] at the monitor's site."""
        return vectors.double().cpu().numpy() @ np.array(self.direction) + self.bias

    def tokens(self, model: Model, tokens: Sequence[int]) -> np.ndarray:
        """The score of every token [T] of one text."""
        return self.score(model.capture([list(tokens)], self.site)[Site.parse(self.site)][0].float())

    @torch.no_grad()
    def watch(self, model: Model, prompt: str | Sequence[dict[str, str]], *, max_new_tokens: int = 64) -> Iterator[Seen]:
        """The prompt's tokens, then each token that the model writes (greedily), as soon as its vector is there.

        A text goes through the chat template where there is one. ValueError for another model.
        """
        self.check(model)
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        plain = isinstance(prompt, str) and not getattr(model.tokenizer, "chat_template", None)
        given = model.tokenize(str(prompt)) if plain else model.chat_tokens(messages)
        site, last = Site.parse(self.site), {}

        def look(x: Tensor, y: Tensor) -> Tensor:
            last["vectors"] = y[0].float()
            return y

        step, mask = model.batch([given])
        past, ends, left = None, ending_tokens(model), max_new_tokens
        while True:
            with model.edit(Edit(site, site, look, label="monitor", special=True)):
                hidden, past = model.decode_step(step, mask, past)
            for token, score in zip(step[0].tolist(), self.score(last["vectors"]).tolist(), strict=True):
                yield Seen(token, model.tokenizer.decode([token]), score, score > self.threshold, left == max_new_tokens)
            token = int(model.logits_of(hidden)[0].argmax())
            if not left or token in ends:
                return
            left -= 1
            step = torch.tensor([[token]], device=step.device)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)


def make_monitor(
    target: Target, protocol: Protocol, *, cases: CaseSet | None = None, place: str = "", seed: int = 0, false: float = FALSE
) -> Monitor:
    """The readout that an audit by `protocol` chooses, with its threshold; `place` takes one place only, a mean over a named span too.

    `span:NAME` is the mean over the tokens of the cases' span NAME.
    """
    chosen = cases or protocol.cases(seed)
    part = chosen.split(seed)
    used = chosen.of(protocol.positive, protocol.negative)
    prompts = target.prompts(used)
    tail = min(p.tail for p in prompts)
    places = [place] if place else [*(f"last-{k}" if k else "last" for k in range(min(protocol.places, tail))), "request"]
    read = [f"{MEAN}{p[5:]}" if p.startswith("span:") else p for p in places]
    vectors = target.vectors(prompts, target.sites, read).numpy()
    label, group = (np.array([getattr(c, name) for c in used]) for name in ("label", "group"))
    where = np.array([part[g] for g in group])
    data = detect.Data(used, vectors, label, group, where, protocol.positive, protocol.negative, "", target.sites, places)
    best = readouts.search(vectors, data.y, data.rows("train"), data.rows("validation"), data.sites, places).best
    return frozen(target, protocol.name, best, data, chosen.hash, seed=seed, false=false)


def frozen(
    target: Target, name: str, readout: Readout, data: detect.Data, cases_sha256: str, *, seed: int, false: float = FALSE
) -> Monitor:
    """A readout with its threshold from validation cases, and its rates on validation and test cases."""
    scores = readout.score(data.at(readout))
    held = data.rows("validation")
    at = threshold(scores[held & ~data.y], scores[held], false)
    rates = {
        split: {
            "false_alarms": asdict(statistics.wilson(int((scores[rows & ~data.y] > at).sum()), int((rows & ~data.y).sum()))),
            "found": asdict(statistics.wilson(int((scores[rows & data.y] > at).sum()), int((rows & data.y).sum()))),
        }
        for split in ("validation", "test")
        for rows in [data.rows(split)]
    }
    return Monitor(
        name, target.name, target.hash, str(readout.site), readout.place, readout.kind, tuple(map(float, readout.direction)),
        float(readout.bias), at, cases_sha256, seed, rates,
    )  # fmt: skip


def threshold(negative: np.ndarray, both: np.ndarray, false: float = FALSE) -> float:
    """The lowest value with at most a share `false` of `negative` above it, half-way to the next score above among `both`."""
    allowed = int(false * len(negative))
    bar = float(np.sort(negative)[len(negative) - 1 - allowed])
    above = both[both > bar]
    return (bar + float(above.min())) / 2 if len(above) else bar
