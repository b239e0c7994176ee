"""A forward pass with attention patterns and norm denominators frozen: what then remains between two MLPs is linear.

With x_l the residual stream before block l, and a norm n(x) = s_t g * x (+ b), s_t frozen a position:

1. One forward pass in which attention is computed the plain way, so that patterns A [H, T, T] can be read.
2. Each block's order is found by looking at which tensor goes where: what the attention and the MLP read, and which
   norm stands before or after them. Norms are asked for their gain, not recognised by name.
3. x_mid = x_l + n_post(sum_h A_h n_pre(x_l) W_V W_O),  x_{l+1} = x_mid + mlp_out; parallel blocks read x_l twice.
   `pull` takes covectors back through this map (its transpose), `push` takes vectors forward.
4. The map is compared with what the model computed, layer by layer; an architecture that it does not describe (another
   attention, a scaled residual) is refused with the distance.

Sources: Ameisen et al. 2025 (Circuit tracing), section "Attribution graphs"; the transposed sweep is ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from diascope.models.chat import template_prefix
from diascope.models.model import Model
from diascope.models.parts import ATTENTION, MLP, POST_MLP_NORM, PROJECTION, child

FUSED = ("c_attn", "qkv_proj", "query_key_value", "Wqkv")  # queries, keys and values from one product
TOLERANCE = (
    1e-3  # of the map against the model, relative to the residual's norm: float32 stays below 1e-5, a wrong map is far above
)


@dataclass(frozen=True)
class Norm:
    """n(x) = scale * gain * x + bias, x centred first in a LayerNorm; the scale is one number a position, frozen."""

    module: nn.Module
    gain: Tensor  # [d]
    bias: Tensor  # [d], zeros in an RMSNorm
    centred: bool
    scale: Tensor  # [T, 1]

    @classmethod
    def of(cls, module: nn.Module, x: Tensor, y: Tensor) -> Norm:
        """The norm that made y [T, d] of x [T, d], asked for its gain with a vector of mean 0 and mean square 1."""
        d = x.shape[-1]
        z = torch.ones(d, dtype=torch.float64)
        z[1::2] = -(d - d // 2) / (d // 2)
        z = (z / z.square().mean().sqrt()).to(x)
        bias = module(torch.zeros_like(x[:1]))[0]
        gain = (module(1e4 * z[None])[0] - bias) / z
        shifted = (module(1e4 * (z + 1)[None])[0] - bias) / z  # a LayerNorm does not see the shift
        centred = bool((shifted - gain).norm() < 1e-3 * gain.norm())
        inner = (x - x.mean(-1, keepdim=True) if centred else x) * gain
        scale = ((y - bias) * inner).sum(-1, keepdim=True) / inner.square().sum(-1, keepdim=True).clamp_min(1e-30)
        return cls(module, gain, bias, centred, scale)

    def __call__(self, x: Tensor, *, live: bool) -> Tensor:
        """n(x) [..., T, d] with its denominators live or frozen."""
        return self.module(x) if live else self.push(x) + self.bias

    def pull(self, G: Tensor) -> Tensor:
        """Covectors [..., T, d] at its output, at its input (T may be fewer positions than were read: the first)."""
        return self.pull_at(G, self.scale[: G.shape[-2]])

    def pull_at(self, G: Tensor, scale: Tensor) -> Tensor:
        """`pull` where the positions' scales are given [..., 1]."""
        G = G * self.gain * scale
        return G - G.mean(-1, keepdim=True) if self.centred else G

    def push(self, x: Tensor) -> Tensor:
        """Vectors [..., T, d] at its input, at its output; the bias is left out."""
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return x * self.gain * self.scale[: x.shape[-2]]


@dataclass(frozen=True)
class Attention:
    """y_q = sum_h sum_k pattern[h, q, k] (x_k W_V + b_V)_h W_O + b_O."""

    pattern: Tensor  # [H, T, T]
    values: Tensor  # W_V [d, kv_heads * d_head]
    values_bias: Tensor  # [kv_heads * d_head]
    out: Tensor  # W_O [H * d_head, d]
    out_bias: Tensor  # [d]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Key-value heads, query heads that share one, and the length of a head."""
        heads = self.pattern.shape[0]
        d_head = self.out.shape[0] // heads
        kv = self.values.shape[1] // d_head
        return kv, heads // kv, d_head

    def pull(self, G: Tensor, *, heads: Tensor | None = None) -> Tensor:
        """Covectors [n, T', d] at its output, at its input; `heads` [H] weighs the heads (all 1)."""
        n, T, _ = G.shape
        kv, group, d_head = self.shape
        pattern = self.pattern[:, :T, :T] if heads is None else self.pattern[:, :T, :T] * heads[:, None, None]
        Z = (G @ self.out.t()).view(n, T, kv, group, d_head).permute(2, 0, 3, 1, 4).reshape(kv, n, group * T, d_head)
        P = pattern.reshape(kv, group * T, T).transpose(1, 2)  # [kv, keys, group * queries]
        M = torch.matmul(P[:, None], Z)  # [kv, n, T, d_head]
        return M.permute(1, 2, 0, 3).reshape(n, T, kv * d_head) @ self.values.t()

    def push(self, x: Tensor, *, bias: bool = False) -> Tensor:
        """Vectors [n, T, d] at its input, at its output; with `bias` the constants too."""
        n, T, _ = x.shape
        kv, group, d_head = self.shape
        v = x @ self.values + (self.values_bias if bias else 0)
        v = v.view(n, T, kv, d_head).permute(2, 0, 1, 3)  # [kv, n, T, d_head]
        P = self.pattern[:, :T, :T].reshape(kv, group * T, T)
        z = torch.matmul(P[:, None], v).view(kv, n, group, T, d_head).permute(1, 3, 0, 2, 4)
        return z.reshape(n, T, -1) @ self.out + (self.out_bias if bias else 0)


@dataclass(frozen=True)
class Block:
    """One block's parts and what they were given in this pass; a norm is None where the block has none there."""

    before: Norm | None
    attention: Attention
    after: Norm | None
    norm: Norm | None  # before the MLP
    mlp: nn.Module
    mlp_after: nn.Module | None  # the norm after the MLP, inside what a transcoder stands for
    parallel: bool  # the MLP reads what the attention reads
    earlier: Tensor | None = None  # [T, d]: what tokens before the window add to x_mid through attention

    def pull_attention(self, G: Tensor, *, heads: Tensor | None = None) -> Tensor:
        """Covectors [n, T', d] on x_mid, as what the attention branch alone adds to those on x."""
        G = G if self.after is None else self.after.pull(G)
        G = self.attention.pull(G, heads=heads)
        return G if self.before is None else self.before.pull(G)

    def pull_read(self, C: Tensor, positions: Tensor) -> Tensor:
        """Covectors [n, d] on what the MLP reads, each at its position [n], on the residual there."""
        return C if self.norm is None else self.norm.pull_at(C, self.norm.scale[positions])

    def constants(self) -> tuple[Tensor, Tensor]:
        """What the attention branch adds to x_mid [T, d] without any input, and the MLP norm's bias [d]."""
        a, T = self.attention, self.attention.pattern.shape[-1]
        start = a.out.new_zeros(1, T, a.out.shape[1]) + (0 if self.before is None else self.before.bias)
        y = a.push(start, bias=True)
        if self.after is not None:
            y = self.after.push(y) + self.after.bias
        return y[0], torch.zeros_like(a.out_bias) if self.norm is None else self.norm.bias

    def attended(self, x: Tensor, *, live_norms: bool = True) -> Tensor:
        """What the attention branch adds for residuals x [n, T, d], the pattern frozen."""
        h = x if self.before is None else self.before(x, live=live_norms)
        h = self.attention.push(h, bias=True)
        return h if self.after is None else self.after(h, live=live_norms)

    def windowed(self, x: Tensor, first: int) -> Block:
        """The block of positions `first` on; what those before it add through attention is `earlier`, a constant."""
        a, outside = self.attention, self.attention.pattern.clone()
        outside[:, :, first:] = 0
        h = x[None] if self.before is None else self.before.push(x[None]) + self.before.bias
        h = replace(a, pattern=outside).push(h, bias=True) - a.out_bias
        h = (h if self.after is None else self.after.push(h))[0, first:]
        norms = {n: (cut := getattr(self, n)) and replace(cut, scale=cut.scale[first:]) for n in ("before", "after", "norm")}
        return replace(self, **norms, attention=replace(a, pattern=a.pattern[:, first:, first:]), earlier=h)

    def mlp_out(self, x: Tensor, *, live_norms: bool = True) -> Tensor:
        """What the MLP branch adds for residuals x [n, T, d]; the MLP is live, and so is a norm after it."""
        h = self.mlp(x if self.norm is None else self.norm(x, live=live_norms))
        h = h[0] if isinstance(h, tuple) else h
        return h if self.mlp_after is None else self.mlp_after(h)


@dataclass(frozen=True)
class FrozenPass:
    """One prompt's pass, frozen: residuals before each block (and after the last), what MLPs read and wrote."""

    model: Model
    tokens: Tensor  # [T]
    ordinary: Tensor  # [T] bool: not a special token
    blocks: tuple[Block, ...]
    final: Norm
    residuals: Tensor  # [L + 1, T, d]
    mlp_in: Tensor  # [L, T, d]
    mlp_out: Tensor  # [L, T, d]
    distance: float  # largest relative distance of the frozen map from the model over layers
    attention_modules: tuple[nn.Module, ...] = ()
    positions_given: tuple[Any, ...] = ()  # (cos, sin) by layer, where the model turns queries and keys by position
    earlier: tuple[int, ...] = ()  # token ids before the window

    @property
    def first(self) -> int:
        """The position in the prompt at which the pass begins; more than 0 in a window."""
        return len(self.earlier)

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def length(self) -> int:
        """T, the number of tokens."""
        return len(self.tokens)

    @property
    def last(self) -> Tensor:
        """The final norm's output [T, d], which the unembedding reads."""
        x = self.residuals[-1]
        return self.final.push(x) + self.final.bias

    def window(self, length: int) -> FrozenPass:
        """The last `length` positions alone; earlier tokens enter each block as a constant, so that nothing is lost."""
        first = max(0, self.length - length)
        if first == 0:
            return self
        blocks = tuple(b.windowed(self.residuals[l], first) for l, b in enumerate(self.blocks))
        return replace(
            self, tokens=self.tokens[first:], ordinary=self.ordinary[first:], blocks=blocks,
            final=replace(self.final, scale=self.final.scale[first:]), residuals=self.residuals[:, first:],
            mlp_in=self.mlp_in[:, first:], mlp_out=self.mlp_out[:, first:],
            earlier=(*self.earlier, *self.tokens[:first].tolist()),
        )  # fmt: skip

    @torch.no_grad()
    def replay(self, added: dict[int, Tensor], n: int = 1, *, start: int = 0, live_norms: bool = True) -> Tensor:
        """The final norm's output [n, T, d] when `added[l]` [n, T, d] is added to what MLP l writes: patterns frozen, MLPs live.

        Blocks before `start` are not run: nothing may be added there.
        """
        assert self.first == 0  # a live norm needs the whole of what attention adds
        x = self.residuals[start].expand(n, -1, -1)
        for l in range(start, self.n_layers):
            block = self.blocks[l]
            mid = x + block.attended(x, live_norms=live_norms)
            x = mid + block.mlp_out(x if block.parallel else mid, live_norms=live_norms)
            if l in added:
                x = x + added[l]
        return self.final(x, live=live_norms)


@torch.no_grad()
def frozen_pass(model: Model, prompt: Any) -> FrozenPass:
    """Run `prompt` (a text, token ids, or a conversation of {role, content}) through `model` and freeze the pass.

    Raises ValueError for several prompts, inside of model.edit, for half precision, and for an architecture that the frozen
    map does not describe.
    """
    _checked(model)
    talk = isinstance(prompt, list | tuple) and bool(prompt) and isinstance(prompt[0], dict)
    tokens, attention = model.batch(model.chat_tokens(prompt) if talk else prompt)
    if len(tokens) > 1:
        raise ValueError(f"a pass is frozen for one prompt, got {len(tokens)}: call it once for each")
    blocks, trunk, final = list(model.parts.blocks), model.parts.trunk, model.final_norm
    watched = [final, *(m for b in blocks for m in (b, *b.children(), _attention(b)))]
    with _eager(trunk), _watching(watched) as seen:
        model._trunk(tokens, attention, None)
    found = tuple(_block(b, seen) for b in blocks)
    x_in, mlp_in, mlp_out, x_out = [], [], [], None
    for b, f in zip(blocks, found):
        x_in.append(seen[b].given[0])
        mlp_in.append(seen[f.mlp].given[0])
        mlp_out.append(seen[f.mlp_after if f.mlp_after is not None else f.mlp].gave[0])
    x_out = seen[final].given[0]
    residuals = torch.stack([*x_in, x_out])
    distance = max(_distance(f, residuals[l], mlp_out[l], residuals[l + 1]) for l, f in enumerate(found))
    if not distance < TOLERANCE:
        raise ValueError(
            f"{model.name} cannot be traced: attention and norms as diascope knows them, frozen, are {distance:.1e} of the residual's "
            f"length away from what {type(blocks[0]).__name__} computes (at most {TOLERANCE:g})"
        )
    return FrozenPass(
        model, tokens[0], _ordinary(model, tokens[0]), found, Norm.of(final, x_out, seen[final].gave[0]),
        residuals, torch.stack(mlp_in), torch.stack(mlp_out), distance, tuple(_attention(b) for b in blocks),
        tuple(seen[_attention(b)].named.get("position_embeddings") for b in blocks),
    )  # fmt: skip


def _distance(block: Block, x: Tensor, mlp_out: Tensor, after: Tensor) -> float:
    """How far the frozen map is from what the block returned, relative to it, over all positions."""
    return float((x + block.attended(x[None], live_norms=False)[0] + mlp_out - after).norm() / after.norm())


def _checked(model: Model) -> None:
    """ValueError for what a frozen pass cannot be made of."""
    if model._edits:
        raise ValueError("a graph is of the model as it is: trace outside of model.edit(...)")
    if model.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{model.name} is in {str(model.dtype).removeprefix('torch.')}, too rough for a graph that closes: load it with dtype='float32'"
        )
    if model.device.type != "cpu":
        raise ValueError(f"{model.name} is on {model.device}: graphs are traced on the processor, so load it there")


def _ordinary(model: Model, tokens: Tensor) -> Tensor:
    """[T] bool: the positions that dictionaries are trained on, without special tokens and a chat template's prefix."""
    found = model.ordinary(tokens)
    if getattr(model.tokenizer, "chat_template", None):
        prefix = template_prefix(model)
        if tokens[: len(prefix)].tolist() == prefix:
            found[: len(prefix)] = False
    return found


# -- looking ---------------------------------------------------------------------------------------------------------
@dataclass
class _Seen:
    """What a module was given and gave: the first tensor of each, and all of its output."""

    given: Tensor
    gave: Tensor
    output: Any
    named: dict[str, Any]


@contextlib.contextmanager
def _watching(modules: list[nn.Module]) -> Iterator[dict[nn.Module, _Seen]]:
    seen: dict[nn.Module, _Seen] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        if isinstance(given, Tensor):
            seen[module] = _Seen(given, output[0] if isinstance(output, tuple) else output, output, kwargs)

    handles = [m.register_forward_hook(keep, with_kwargs=True) for m in dict.fromkeys(modules)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _eager(trunk: Any) -> Iterator[None]:
    """Attention computed the plain way, so that its patterns can be read."""
    before = trunk.config._attn_implementation
    trunk.set_attn_implementation("eager")
    try:
        yield
    finally:
        trunk.set_attn_implementation(before)


def _attention(block: nn.Module) -> nn.Module:
    found = child(block, ATTENTION)
    if found is None:
        raise ValueError(f"{type(block).__name__} has no attention (looked for {', '.join(ATTENTION)})")
    return found


def _block(block: nn.Module, seen: dict[nn.Module, _Seen]) -> Block:
    """The block's parts in their order, by which tensor went where."""
    attention, mlp = _attention(block), child(block, MLP)
    assert mlp is not None  # find_parts asked for it
    norms = [m for m in block.children() if m in seen and m not in (attention, mlp)]

    def norm(test: Any) -> Norm | None:
        """The norm of which `test(what it was given, what it gave)` is true."""
        found = next((m for m in norms if test(seen[m])), None)
        return None if found is None else Norm.of(found, seen[found].given[0], seen[found].gave[0])

    before = norm(lambda s: s.gave is seen[attention].given)
    after = norm(lambda s: s.given is seen[attention].gave)
    read = norm(lambda s: s.gave is seen[mlp].given)
    start = seen[block].given
    parallel = seen[mlp].given is start or (read is not None and seen[read.module].given is start)
    last = child(block, POST_MLP_NORM)
    return Block(before, _frozen_attention(attention, seen[attention]), after, read, mlp, last, parallel)


def _frozen_attention(module: nn.Module, seen: _Seen) -> Attention:
    pattern = seen.output[1] if isinstance(seen.output, tuple) and len(seen.output) > 1 else None
    if not isinstance(pattern, Tensor) or pattern.ndim != 4:
        raise ValueError(f"{type(module).__name__} does not say its attention pattern, so it cannot be frozen")
    projection = child(module, PROJECTION)
    if projection is None:
        raise ValueError(f"{type(module).__name__} has no output projection (looked for {', '.join(PROJECTION)})")
    like, heads = seen.given, pattern.shape[1]
    out, out_bias = affine(projection, _width_in(projection), like)
    values, bias = _values(module, heads, out.shape[0] // heads, like)
    return Attention(pattern[0].to(like), values, bias, out, out_bias)


def _values(module: nn.Module, heads: int, d_head: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """W_V [d, kv_heads * d_head] and its bias, also where one product makes queries, keys and values."""
    d = like.shape[-1]
    if (own := child(module, ("v_proj",))) is not None:
        return affine(own, d, like)
    fused = child(module, FUSED)
    if fused is None:
        names = ", ".join(n for n, _ in module.named_children())
        raise ValueError(
            f"{type(module).__name__} has no value projection (its parts: {names}; looked for v_proj, {', '.join(FUSED)})"
        )
    W, b = affine(fused, d, like)
    if type(fused).__name__ == "Linear" and child(module, ("query_key_value",)) is fused:  # NeoX: q, k, v of each head in turn
        return W.view(d, heads, 3, d_head)[:, :, 2].reshape(d, -1), b.view(heads, 3, d_head)[:, 2].reshape(-1)
    width = (W.shape[1] - heads * d_head) // 2
    return W[:, -width:], b[-width:]


def affine(module: nn.Module, d: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """W [d, out] and b [out] of an affine module, whatever it keeps its weights in (adapters and quantisation included)."""
    if type(module) is nn.Linear:  # the weights themselves, not a copy
        W = module.weight.detach().t()
        return W, like.new_zeros(W.shape[1]) if module.bias is None else module.bias.detach()
    bias = module(torch.zeros(1, d, dtype=like.dtype, device=like.device))[0]
    weight = module(torch.eye(d, dtype=like.dtype, device=like.device)) - bias
    return weight, bias


def _width_in(module: Any) -> int:
    module = getattr(module, "base_layer", module)
    return int(module.in_features if hasattr(module, "in_features") else module.weight.shape[0])
