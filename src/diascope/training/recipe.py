"""What a training run is: every published choice of Gemma Scope 2, and each unpublished one as a field with its unit.

Activations are scaled so that E|x|^2 = 1 (per site); learning rates, thresholds and bandwidths are in that unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diascope.config import within
from diascope.dictionaries import BatchTopK, Causal, Gated, Joint, JumpReLU, Matryoshka, OneToOne, ReLU, SampledMatryoshka, TopK
from diascope.sites import Site, spelled
from diascope.training.sparsity import Coefficient, Controller, FrequencyPenalty, QuadraticL0

MEMBER = "member:"  # what a start begins with when it is another member of the group


@dataclass(frozen=True)
class MemberRecipe:
    """One dictionary of a group: independent choices, any combination that makes sense; others are refused with the reason."""

    name: str
    """Its folder under the run."""
    sites_in: tuple[str, ...] | str = ("L12.resid_post",)
    """Sites that are read (one may be given as plain text)."""
    sites_out: tuple[str, ...] | str = ("L12.resid_post",)
    """Sites that are written; the ones that are read make an SAE or crosscoder, others a transcoder."""
    map: OneToOne | Joint | Causal = field(default_factory=OneToOne)
    """Which latents read and write which sites: OneToOne, Joint (crosscoder), Causal (weakly causal crosscoder, CLT)."""
    d_sae: int = 16384
    """Number of latents, over all sites together."""
    activation: JumpReLU | ReLU | Gated | TopK | BatchTopK = field(default_factory=BatchTopK)
    """JumpReLU as in the release; BatchTopK, converted to JumpReLU at the end (which the paper did for multi-layer models);
    TopK; ReLU with L1; Gated, exported as the JumpReLU that it is."""
    matryoshka: Matryoshka | SampledMatryoshka | None = field(default_factory=Matryoshka)
    """Nested prefixes: fixed, drawn at every step, or None."""
    skip: bool = False
    """Add an affine skip connection (transcoders)."""
    start: tuple[str, ...] | str = ()
    """Where the weights start: empty for noise; a finished dictionary of the same shape (fine-tuning); or, for Causal maps, one
    single-layer dictionary a site. `member:NAME` is another member of the group, as it is when this one begins."""
    skip_start: str = "ridge"
    """Where the skip starts: "ridge" (the least-squares map, found from the stored rows) or "zeros"."""
    l0_target: float = 60.0
    """Active latents a token at the end, over all sites together; reached by k, by the sparsity control, and by calibration."""
    sparsity: QuadraticL0 | Coefficient | Controller | None = None
    """What pulls L0 to the target where k does not; None takes the activation's usual one (JumpReLU: QuadraticL0; ReLU and
    Gated: Controller)."""
    frequency: FrequencyPenalty | None = None
    """Penalty on latents that fire often (JumpReLU only; the release uses one)."""
    metric_power: float = 1.0
    """How errors weigh dimensions: each is divided by its standard deviation to this power. 0 is one scale a site (the
    release), 1 standardises; the fold undoes it exactly. On Gemma 3 a few dimensions hold most variance: see docs/training.md."""

    folder: str = ""
    """Its path in the release's folder tree; empty takes the one that its kind, layer, width and L0 give."""
    begins: float = 0.0
    """Share of the run after which this member starts."""
    ends: float = 1.0
    """Share of the run at which it is finished; its schedules cover its own part."""

    def __post_init__(self) -> None:
        for name in ("sites_in", "sites_out"):
            object.__setattr__(self, name, spelled(getattr(self, name)))
        object.__setattr__(self, "start", (self.start,) if isinstance(self.start, str) else tuple(self.start))
        reads, writes = ([Site.parse(s) for s in sites] for sites in (self.sites_in, self.sites_out))
        if isinstance(self.map, OneToOne) and (len(reads), len(writes)) != (1, 1):
            raise ValueError(f"{self.name} has {len(reads)} sites in and {len(writes)} out: give it map=Joint() or Causal()")
        last, first = max(reads, key=lambda s: s.depth), min(writes, key=lambda s: s.depth)
        pairs = list(zip(reads, writes)) if isinstance(self.map, Causal) else [(last, first)]
        for a, b in pairs:
            if self.sites_in != self.sites_out and a.model == b.model and a.depth > b.depth:
                raise ValueError(f"{self.name} reads {a}, which is computed after {b}, where it writes")
        within(f"{self.name}: d_sae", self.d_sae, 2, 2**24, "latents")
        within(f"{self.name}: l0_target", self.l0_target, 1, self.d_sae - 1, "active latents a token")
        within(f"{self.name}: metric_power", self.metric_power, 0, 2)
        if not 0 <= self.begins < self.ends <= 1:
            raise ValueError(f"{self.name} runs from {self.begins:g} to {self.ends:g} of the run: give 0 <= begins < ends <= 1")
        if isinstance(self.matryoshka, Matryoshka) and self.matryoshka.prefixes[-1] != self.d_sae:
            raise ValueError(
                f"{self.name}: the last Matryoshka prefix is {self.matryoshka.prefixes[-1]}, the width is {self.d_sae}"
            )
        if isinstance(self.activation, TopK | BatchTopK) and self.activation.k != round(self.l0_target):
            kind = type(self.activation).__name__
            raise ValueError(
                f"{self.name}: {kind}(k={self.activation.k}) and l0_target={self.l0_target:g} disagree: give one number"
            )
        n = len(reads) if isinstance(self.map, Causal) else 1
        if isinstance(self.matryoshka, Matryoshka) and any(p % n for p in self.matryoshka.prefixes):
            raise ValueError(f"{self.name}: {n} blocks cannot share the prefixes {self.matryoshka.prefixes} evenly")
        if self.skip_start not in ("ridge", "zeros"):
            raise ValueError(f"{self.name}: skip_start is ridge or zeros, not {self.skip_start!r}")
        if self.skip and self.sites_in == self.sites_out:
            raise ValueError(
                f"{self.name} writes what it reads: an affine skip would copy its input, and no latent would learn"
            )

    @property
    def starts_from(self) -> tuple[str, ...]:
        """Names of the members of the group that it starts from."""
        return tuple(s.removeprefix(MEMBER) for s in self.start if s.startswith(MEMBER))

    @property
    def reads(self) -> tuple[Site, ...]:
        return tuple(Site.parse(s) for s in self.sites_in)

    @property
    def writes(self) -> tuple[Site, ...]:
        return tuple(Site.parse(s) for s in self.sites_out)


@dataclass(frozen=True)
class TrainingRecipe:
    """How the members of a group are trained, all on the same batches."""

    members: tuple[MemberRecipe, ...]
    """Dictionaries trained from one stream."""
    seed: int = 0
    """Seed of initialisation and of the order of rows."""
    epochs: float = 2.0
    """Passes over the stored rows (the release never repeats a row; small budgets gain from it)."""
    batch: int = 2048
    """Rows a step (the release: 4,096)."""
    lr: float = 1e-3
    """Peak learning rate of Adam (the release: 7e-5 over about 10^9 tokens)."""
    lr_warmup: int = 50
    """Steps of cosine warm-up from 0.1 lr (the release: 1,000)."""
    lr_decay: float = 0.3
    """Share of the run over which the rate falls linearly to zero at the end (the release: none)."""
    beta1: float = 0.0
    """Adam's first-moment decay; 0 as in the release, which then needs no memory for it."""
    beta2: float = 0.999
    """Adam's second-moment decay."""
    update_clip: float = 1.0
    """Largest |gradient / root second moment| of one entry in one step; 0 for plain Adam."""
    l0_warmup: int = 100
    """Steps over which the sparsity pressure rises (a penalty's weight; k of TopK and BatchTopK falls from 4 times its target)."""
    theta_start: float = 0.001
    """Starting threshold of JumpReLU, in units of scaled activations."""
    product: str = "float32"
    """Precision of the encoder product: "bfloat16" finds candidates by it and computes their values again in fp32."""
    aux_coefficient: float = 1 / 32
    """Weight of the auxiliary loss: dead latents reconstruct the (detached) residual (Gao et al. 2024)."""
    aux_k: int = 256
    """Dead latents a row in the auxiliary loss."""
    dead_after: int = 100_000
    """Rows without firing after which a latent counts as dead."""
    decoder_start: str = "rows"
    """Starting decoder: "he" (He-uniform, unit rows, as in the release) or "rows" (centred training targets)."""
    max_norm_ratio: float = 0.0
    """Leave out rows whose norm exceeds this many medians at some site; 0 keeps all, and counts those above 3 (0.14 % at
    layer 12)."""
    checkpoint_every: float = 120.0
    """Seconds between checkpoints."""

    def __post_init__(self) -> None:
        if not self.members or len({m.name for m in self.members}) < len(self.members):
            raise ValueError("a group needs at least one member, and each its own name")
        known = {m.name: m for m in self.members}
        for m in self.members:
            for name in m.starts_from:
                if len(m.starts_from) < len(m.start):
                    raise ValueError(f"{m.name} starts from members and from folders: give one or the other")
                if name not in known or known[name].begins >= m.begins:
                    raise ValueError(
                        f"{m.name} starts from the member {name!r}, which must exist and begin earlier than it does"
                    )
        if self.product not in ("float32", "bfloat16"):
            raise ValueError(f"product is float32 or bfloat16, not {self.product!r}")
        if self.decoder_start not in ("he", "rows"):
            raise ValueError(f"decoder_start is he or rows, not {self.decoder_start!r}")
        for name, low, high in (
            ("epochs", 1e-6, 1e6), ("batch", 2, 2**24), ("lr", 1e-12, 10), ("lr_decay", 0, 1), ("beta1", 0, 1 - 1e-9), ("beta2", 0, 1 - 1e-9),
            ("lr_warmup", 0, 1e12), ("l0_warmup", 0, 1e12), ("update_clip", 0, 1e18), ("max_norm_ratio", 0, 1e18),
        ):  # fmt: skip
            within(name, getattr(self, name), low, high)

    def sites(self) -> tuple[Site, ...]:
        """All sites that the members read or write, each once."""
        return tuple(dict.fromkeys(s for m in self.members for s in (*m.reads, *m.writes)))
