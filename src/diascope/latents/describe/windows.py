"""Windows of text for chosen latents: training windows for the description, test windows for its scores.

1. Every document's piece is cut into windows of a fixed length from its first token on: a grid that knows nothing of any
   latent, so where a window begins gives nothing away. A window holds rows alone (tokens on which latents are computed);
   a text that stands there twice counts once.
2. A document is for training iff the keyed hash of its name is below one half: training and test windows never share one.
3. One sweep gives all firings. A positive window holds a firing, a negative one was swept whole and holds none.
4. Training: half the strongest windows, half drawn over intervals of activation. Test positives: drawn evenly over five
   equal intervals of (0, max]. Test negatives: up to half hard, with a token on which the latent mostly fires, though it
   does not fire here; the rest drawn at random. Different documents come first everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diascope import rng
from diascope.config import within
from diascope.latents.describe.profile import Profile, profiled
from diascope.latents.examples import INTERVALS, Firings
from diascope.models import Model
from diascope.tokens import Sequences


@dataclass(frozen=True)
class Sampling:
    """How many windows of what length a latent gets."""

    window: int = 32  # tokens
    train: int = 16  # training windows
    positives: int = 20  # test windows in which it fires
    negatives: int = 20  # test windows in which it does not
    seed: int = 0

    def __post_init__(self) -> None:
        within("window", self.window, 4, 4096, "tokens")
        within("train", self.train, 1, 1000, "windows")
        within("positives", self.positives, 5, 1000, "windows")
        within("negatives", self.negatives, 5, 1000, "windows")


@dataclass(frozen=True)
class Window:
    """A stretch of text with one latent's activation on every token."""

    tokens: np.ndarray  # [W] int32
    texts: tuple[str, ...]  # of every token
    activations: np.ndarray  # [W] float32, zero where it does not fire
    document: int  # index into the sequences' names

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def peak(self) -> float:
        return float(self.activations.max())

    def marked(self, where: Sequence[int] | np.ndarray) -> str:
        """The text with <<these>> tokens marked."""
        chosen = set(map(int, where))
        return "".join(f"<<{t}>>" if i in chosen else t for i, t in enumerate(self.texts))

    @property
    def fired(self) -> np.ndarray:
        """Offsets at which it fires, at a tenth of its strongest here or more: weaker firings would mark half a sentence."""
        return np.flatnonzero(self.activations > 0.1 * self.peak)


@dataclass(frozen=True)
class Examples:
    """One latent's windows, and what is known of its tokens in the training documents."""

    latent: int
    train: tuple[Window, ...]  # the strongest first
    positive: tuple[Window, ...]
    negative: tuple[Window, ...]
    profile: Profile
    by_token: dict[int, float]  # its mean activation on each token in the training windows; none of tokens it passes over

    @property
    def test(self) -> tuple[Window, ...]:
        return (*self.positive, *self.negative)


class Grid:
    """All windows of `sequences`, and the firings that lie in them."""

    def __init__(self, model: Model, sequences: Sequences, firings: Firings, sampling: Sampling) -> None:
        """Raises ValueError for firings of another text, or text that is too short for a single window of either half."""
        rows = sequences.rows(model)
        if firings.tokens != int(rows.sum()):
            raise ValueError(
                f"the firings are of {firings.tokens:,} tokens, the text has {int(rows.sum()):,}: a negative window must have been "
                "swept, so give the firings of a sweep over these very sequences"
            )
        self.model, self.sequences, self.firings, self.sampling = model, sequences, firings, sampling
        first = _unique(sequences, _cut(sequences, rows, sampling.window), sampling.window)
        self.first = first  # [M] flat place of every window's first token
        self.tokens = sequences.tokens.reshape(-1)[first[:, None] + np.arange(sampling.window)]  # [M, W]
        self.document = sequences.document.reshape(-1)[first]  # [M]
        train = np.array([rng.unit_hash(sampling.seed, f"describe\x1f{name}") < 0.5 for name in sequences.names])
        self.train_document = train  # [documents]
        self.train = train[self.document]  # [M]
        if not self.train.any() or self.train.all():
            raise ValueError(
                f"the text has {len(first)} windows of {sampling.window} tokens in {len(np.unique(self.document))} documents, which "
                "cannot be parted into training and test documents: give more text"
            )
        self.owner = np.full(sequences.tokens.size, -1, np.int64)  # the window of every place
        self.owner[(first[:, None] + np.arange(sampling.window)).ravel()] = np.repeat(np.arange(len(first)), sampling.window)
        self._count = np.bincount(self.tokens[self.train].ravel())  # of each token in the training windows
        self._strings: dict[int, str] = {}

    def fired(self, latent: int) -> tuple[np.ndarray, np.ndarray]:
        """(windows in which `latent` fires, ascending; its activations there [n, W])."""
        here = self.firings.of(latent)
        place = self.firings.sequence[here].astype(np.int64) * self.sequences.tokens.shape[1] + self.firings.position[here]
        owner, value = self.owner[place], self.firings.activation[here]
        inside = owner >= 0
        windows, row = np.unique(owner[inside], return_inverse=True)
        activations = np.zeros((len(windows), self.sampling.window), np.float32)
        activations[row, (place[inside] - self.first[owner[inside]])] = value[inside]
        return windows, activations

    def eligible(self) -> np.ndarray:
        """Latents with at least five windows of each sort in different documents: fewer cannot be described and scored."""
        least, found = 5, []
        count = np.diff(self.firings.start)
        for latent in np.flatnonzero(count >= 2 * least):
            windows, _ = self.fired(int(latent))
            sides = [np.unique(self.document[windows[self.train[windows] == side]]).size for side in (True, False)]
            silent = int((~self.train).sum()) - int((~self.train[windows]).sum())
            if min(*sides, silent) >= least:
                found.append(int(latent))
        return np.array(found, np.int64)

    def draw(self, count: int) -> list[int]:
        """`count` eligible latents (all, where there are fewer), by key and so without regard to what they look like."""
        eligible = self.eligible()
        if not len(eligible):
            raise ValueError(
                "no latent fires in five training and five test documents and is silent in five: give more text, or another dictionary"
            )
        order = rng.generator(self.sampling.seed, "latents").permutation(len(eligible))
        return sorted(eligible[order[:count]].tolist())

    def examples(self, latent: int) -> Examples:
        """The windows of `latent`. Raises ValueError where it fires in none of either half."""
        s, (windows, activations) = self.sampling, self.fired(latent)
        train = self.train[windows]
        if not train.any() or train.all():
            side = "test" if train.any() else "training"
            raise ValueError(f"latent {latent} fires in no {side} window: give more text, or leave it out")
        draw = rng.generator(s.seed, "windows", latent)
        peak = activations.max(1)
        strong = _apart(np.flatnonzero(train)[np.argsort(-peak[train], kind="stable")], self.document[windows])
        shown = list(strong[: (s.train + 1) // 2])
        shown += _over_intervals(np.setdiff1d(strong, shown), peak, self.document[windows], s.train - len(shown), draw)
        positive = _over_intervals(np.flatnonzero(~train), peak, self.document[windows], s.positives, draw)
        profile = profiled(self.firings, self.sequences, latent, self.train_document, self.text)
        shown.sort(key=lambda i: -peak[i])
        return Examples(
            latent,
            tuple(self._window(int(windows[i]), activations[i]) for i in shown),
            tuple(self._window(int(windows[i]), activations[i]) for i in positive),
            tuple(self._window(m, None) for m in self._negatives(windows, profile, draw)),
            profile,
            self._by_token(windows[train], activations[train]),
        )

    def _by_token(self, windows: np.ndarray, activations: np.ndarray) -> dict[int, float]:
        """Mean activation a token over all training windows, `windows` being those in which it fires."""
        total = np.bincount(self.tokens[windows].ravel(), activations.ravel().astype(np.float64))
        fired = np.flatnonzero(total > 0)
        return dict(zip(fired.tolist(), (total[fired] / self._count[fired]).tolist()))

    def _negatives(self, fired: np.ndarray, profile: Profile, draw: np.random.Generator) -> list[int]:
        silent = ~self.train
        silent[fired] = False
        candidates = np.flatnonzero(silent)
        if not len(candidates):
            raise ValueError("a latent fires in every test window: it cannot be scored, leave it out")
        candidates = _apart(draw.permutation(candidates), self.document)
        holds = np.isin(self.tokens[candidates], profile.commonest(3)).any(1)
        hard = candidates[holds][: self.sampling.negatives // 2]
        rest = np.concatenate([candidates[~holds], candidates[holds][len(hard) :]])  # plain ones first
        return [*hard.tolist(), *rest[: self.sampling.negatives - len(hard)].tolist()]

    def _window(self, m: int, activations: np.ndarray | None) -> Window:
        tokens = self.tokens[m]
        values = np.zeros(len(tokens), np.float32) if activations is None else activations
        return Window(tokens, tuple(self.text(int(t)) for t in tokens), values, int(self.document[m]))

    def text(self, token: int) -> str:
        """A token as text."""
        if token not in self._strings:
            self._strings[token] = str(self.model.tokenizer.decode([token]))
        return self._strings[token]

    def words(self, train: bool = True) -> list[str]:
        """The text of every window of the training documents (or the test ones)."""
        return ["".join(self.text(int(t)) for t in row) for row in self.tokens[self.train == train]]


def gather(
    grid: Grid, latents: Sequence[int], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[int, Examples]:
    """Examples of every one of `latents`; ValueError that names those which cannot have any."""
    found, without = {}, []
    for number, latent in enumerate(latents):
        try:
            found[latent] = grid.examples(latent)
        except ValueError as error:
            without.append(f"{latent} ({error})")
        progress(number + 1, len(latents))
    if without:
        raise ValueError(f"{len(without)} latents have no windows: {'; '.join(without[:3])}")
    return found


def _cut(sequences: Sequences, rows: np.ndarray, window: int) -> np.ndarray:
    """Flat places at which windows begin: every stretch of rows of one piece is cut from its start; tails are left out."""
    position = sequences.positions.astype(np.int64)
    goes_on = np.zeros_like(rows)
    goes_on[:, 1:] = rows[:, 1:] & rows[:, :-1] & (position[:, 1:] == position[:, :-1] + 1)
    begins = np.flatnonzero((rows & ~goes_on).ravel())
    ends = np.flatnonzero((rows & ~np.pad(goes_on[:, 1:], ((0, 0), (0, 1)))).ravel()) + 1
    return np.concatenate([np.arange(a, b - window + 1, window) for a, b in zip(begins, ends)] or [np.zeros(0, np.int64)])


def _unique(sequences: Sequences, first: np.ndarray, window: int) -> np.ndarray:
    """The windows whose tokens did not stand in an earlier one: a text in both halves would be seen in training."""
    if not len(first):
        raise ValueError(f"no document has {window} tokens in a row: give longer documents, or a shorter window")
    _, kept = np.unique(sequences.tokens.reshape(-1)[first[:, None] + np.arange(window)], axis=0, return_index=True)
    return first[np.sort(kept)]


def _apart(candidates: np.ndarray, document: np.ndarray) -> np.ndarray:
    """`candidates` in their order, but the first of every document before the second of any."""
    seen: dict[int, int] = {}
    turn = []
    for c in candidates:
        owner = int(document[c])
        turn.append(seen.get(owner, 0))
        seen[owner] = turn[-1] + 1
    return candidates[np.argsort(turn, kind="stable")]


def _over_intervals(
    candidates: np.ndarray, peak: np.ndarray, document: np.ndarray, count: int, draw: np.random.Generator
) -> list[int]:
    """`count` of `candidates`, as evenly over equal intervals of (0, largest peak] as there are any, drawn within each."""
    if not len(candidates) or count < 1:
        return []
    interval = np.minimum((peak[candidates] / peak[candidates].max() * INTERVALS).astype(int), INTERVALS - 1)
    drawn = [_apart(draw.permutation(candidates[interval == i]), document).tolist() for i in range(INTERVALS)]
    chosen: list[int] = []
    while len(chosen) < count and any(drawn):
        chosen += [stack.pop(0) for stack in drawn if stack]
    return chosen[:count]
