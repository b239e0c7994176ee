"""A model to look into: tokens in, vectors at sites out, edits in between.

One forward pass serves any number of sites. The pass runs the trunk alone (no unembedding) and, when only reading,
stops after the deepest block that is asked for (hooks.py). A function's positions are masked by token, so special
tokens are neither rows nor edited.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from diascope.distributed import Axis
from diascope.edits import Edit, Edits, flat
from diascope.models import hooks
from diascope.models.chat import chat_text
from diascope.models.generation import continuations
from diascope.models.parts import FINAL_NORM, Parts, address, child, find_parts, width
from diascope.sites import Site


class Capture(dict):
    """Vectors by site, `[B, T, d]`, with the tokens they belong to. Keys may be Sites or names in any dialect."""

    def __init__(self, tokens: Tensor, attention: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.tokens = tokens  # [B, T]
        self.attention = attention  # [B, T] bool: not padding
        self.mask = mask  # [B, T] bool: not padding and not a special token

    def __missing__(self, key: str | Site) -> Tensor:
        site = Site.parse(key)
        if site not in self:
            raise KeyError(f"{site} was not captured: the sites here are {', '.join(map(str, self))}")
        return self[site]


class Model:
    """A decoder with its tokenizer. `module` stays the plain Hugging Face object; nothing in it is replaced."""

    def __init__(self, module: Any, tokenizer: Any, name: str) -> None:
        self.module = module.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.parts: Parts = find_parts(module)
        self.special_ids = frozenset(tokenizer.all_special_ids) if tokenizer is not None else frozenset()
        self.companions: dict[str, Model] = {}
        self.together = Axis()  # the processes that share its weights (sharded.py)
        self._edits: list[Edit] = []

    def beside(self, others: Mapping[str, Model]) -> Model:
        """This model with `others` by name: `capture` then gives their vectors too, at sites such as `chat:L13.resid_post`.

        All read the same tokens, so their tokenizers must be the same; ValueError where they are not. `self` is unchanged.
        """
        ours = self.tokenizer.get_vocab()
        for name, other in others.items():
            if not re.fullmatch(r"[\w-]+", name):
                raise ValueError(f"{name!r} cannot name a model in a site: use letters, digits, - and _")
            if other.tokenizer.get_vocab() != ours:
                raise ValueError(f"{other.name} and {self.name} have different tokenizers: they cannot read the same tokens")
        together = copy.copy(self)
        together.companions = dict(others)
        return together

    def of(self, site: Site) -> Model:
        """The model that `site` is of: a companion, or this one."""
        return self.companions.get(site.model or "", self)

    # -- facts ---------------------------------------------------------------------------------------------------
    @property
    def n_layers(self) -> int:
        return len(self.parts.blocks)

    @property
    def d_model(self) -> int:
        return int(self.parts.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return next(self.parts.trunk.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.parts.trunk.parameters() if p.is_floating_point())

    @property
    def bos_id(self) -> int | None:
        """The token that opens a document; None when the tokenizer has none."""
        return self.tokenizer.bos_token_id

    def width(self, site: str | Site) -> int:
        """The length of the vector at `site`; ValueError if the model lacks it."""
        site = self._own(site)
        return width(self.of(site).parts, site)

    def has(self, site: Site) -> bool:
        """Whether this model has the part where `site` is: a block may lack attention."""
        with contextlib.suppress(ValueError):
            address(self.parts, site)
            return True
        return False

    @property
    def resumes(self) -> bool:
        """Whether a decode step can start in the middle: no edit is active, and no block reads the keys of one below."""
        return not self._edits and not getattr(self.parts.config, "num_kv_shared_layers", 0)

    def _own(self, name: str | Site) -> Site:
        """The site called `name`; ValueError where this model lacks it, or where it is of another model."""
        site = Site.parse(name)
        if site.model not in (None, self.name, *self.companions):
            beside = f", beside {', '.join(self.companions)}" if self.companions else ""
            raise ValueError(f"{site} is a site of {site.model!r}, and this model is {self.name!r}{beside}")
        address(self.of(site).parts, site)
        return site

    # -- tokens --------------------------------------------------------------------------------------------------
    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, opened by exactly one BOS (where there is one), also when the text already has it."""
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise ValueError("the text holds half of a surrogate pair, which is no character: decode it as UTF-8 first")
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        bos = self.bos_id
        if bos is None:
            return ids
        while ids and ids[0] == bos:
            ids.pop(0)
        return [bos, *ids]

    def chat_tokens(self, messages: Sequence[dict[str, str]], *, answer_next: bool = True) -> list[int]:
        """Token ids of a conversation by the tokenizer's chat template, never with a second BOS (roles: models.render)."""
        ids = list(self.tokenizer(chat_text(self, messages, answer_next=answer_next), add_special_tokens=False)["input_ids"])
        while len(ids) > 1 and ids[0] == ids[1] == self.bos_id:
            ids.pop(0)
        return ids

    def batch(self, texts_or_tokens: Any, *, padding_side: str = "right") -> tuple[Tensor, Tensor]:
        """Token ids [B, T] and attention mask [B, T] (bool) of a text, texts, id lists or an id tensor."""
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is left or right, not {padding_side!r}")
        if isinstance(texts_or_tokens, Tensor):
            tokens = texts_or_tokens if texts_or_tokens.ndim == 2 else texts_or_tokens[None]
            self._check(tokens)
            return tokens.to(self.device), torch.ones_like(tokens, dtype=torch.bool, device=self.device)
        if isinstance(texts_or_tokens, str):
            texts_or_tokens = [texts_or_tokens]
        if texts_or_tokens and isinstance(texts_or_tokens[0], int):
            texts_or_tokens = [texts_or_tokens]
        rows = [self.tokenize(t) if isinstance(t, str) else list(t) for t in texts_or_tokens]
        if not rows or not all(rows):
            raise ValueError("nothing to read: pass at least one non-empty text or token list")
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        tokens = torch.full((len(rows), longest), pad)
        attention = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            where = slice(0, len(row)) if padding_side == "right" else slice(longest - len(row), longest)
            tokens[i, where] = torch.tensor(row)
            attention[i, where] = True
        self._check(tokens)
        return tokens.to(self.device), attention.to(self.device)

    def _check(self, tokens: Tensor) -> None:
        size = getattr(self.parts.unembedding, "out_features", 2**62)  # a quantised weight's own shape says nothing
        if not tokens.numel() or int(tokens.min()) < 0 or int(tokens.max()) >= size:
            found = f"ids {int(tokens.min())} to {int(tokens.max())}" if tokens.numel() else "none"
            raise ValueError(f"{self.name} has token ids 0 to {size - 1}, got {found}")

    def ordinary(self, tokens: Tensor) -> Tensor:
        """True where a token [..., T] is not special (BOS, EOS, padding, turn markers)."""
        special = torch.tensor(sorted(self.special_ids), device=tokens.device, dtype=tokens.dtype)
        return ~torch.isin(tokens, special)

    # -- reading -------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def capture(
        self,
        texts_or_tokens: Any,
        sites: str | Site | Iterable[str | Site],
        *,
        positions: Tensor | None = None,
        padding_side: str = "right",
        past: Any = None,
    ) -> Capture:
        """Vectors at `sites` in one forward pass that stops after the deepest of them.

        `positions` [B, T] are position ids for packed rows: where they restart, attention does not look back.
        `past` is an empty key-value cache, filled by the blocks that run of this model (not of companions).
        Returns a Capture: {site: [B, T, d]} in the model's dtype, with `.tokens`, `.attention` and `.mask`.
        Raises ValueError for a site that the model lacks.
        """
        wanted = [self._own(s) for s in ([sites] if isinstance(sites, (str, Site)) else sites)]
        tokens, attention = self.batch(texts_or_tokens, padding_side=padding_side)
        out = Capture(tokens, attention, attention & self.ordinary(tokens))
        for model in dict.fromkeys(self.of(s) for s in wanted):
            model._read(out, [s for s in wanted if self.of(s) is model], positions, past if model is self else None)
        return out

    def _read(self, out: Capture, sites: list[Site], positions: Tensor | None, past: Any) -> None:
        """Put this model's vectors at `sites` into `out`."""
        tokens, attention = out.tokens.to(self.device), out.attention.to(self.device)
        # edits are hooked on first, so that what is read is what the model goes on with
        with self._editing(tokens, attention), hooks.reading(self.parts, sites, out), contextlib.suppress(hooks.Stop):
            self._trunk(tokens, attention, positions, past)

    @torch.no_grad()
    def capture_next(
        self, prefix: Sequence[int], ids: Sequence[int], sites: Sequence[str | Site], *, batch: int = 256
    ) -> dict[Site, Tensor]:
        """Vectors [n, d] at `sites` of each token of `ids` [n], standing alone after the tokens `prefix`.

        The prefix is computed once, so n words cost n tokens. No edit acts.
        """
        wanted = [self._own(s) for s in sites]
        start, words = self.batch([list(prefix)])[0], torch.as_tensor(list(ids), device=self.device)[:, None]
        self._check(words)
        parts: dict[Site, list[Tensor]] = {s: [] for s in wanted}
        for model in dict.fromkeys(self.of(s) for s in wanted):
            own = [s for s in wanted if self.of(s) is model]
            past = model.parts.trunk(input_ids=start, use_cache=True).past_key_values
            for part in words.split(batch):
                grown, seen = copy.deepcopy(past), {}
                grown.batch_repeat_interleave(len(part))
                with hooks.reading(model.parts, own, seen), contextlib.suppress(hooks.Stop):
                    model.parts.trunk(input_ids=part, past_key_values=grown, use_cache=True)
                for site in own:
                    parts[site].append(seen[site][:, -1])
        return {site: torch.cat(p) for site, p in parts.items()}

    def hidden(
        self,
        texts_or_tokens: Any,
        *,
        positions: Tensor | None = None,
        resume: tuple[int, Any] | None = None,
        grad: bool = False,
        rows: Tensor | None = None,
    ) -> Tensor:
        """The trunk's last hidden state after the final norm, [B, T, d_model]: what the unembedding reads.

        `rows` [B, T] says where edits act, in place of all ordinary tokens: a chat template's prefix is none of them.

        `resume` = (layer, block_output(..., layer - 1)) starts at that layer instead of computing the ones below again.
        With `grad` a graph is built, so that a loss reaches the edits.
        """
        tokens, attention = self.batch(texts_or_tokens)
        starting = hooks.skipping(self.parts, *resume) if resume else contextlib.nullcontext()
        with torch.set_grad_enabled(grad), self._editing(tokens, attention, rows), starting:
            return self._trunk(tokens, attention, positions)

    @torch.no_grad()
    def block_output(self, texts_or_tokens: Any, layer: int, *, positions: Tensor | None = None) -> Any:
        """What block `layer` returns, in the architecture's own form, for `hidden(..., resume=...)`."""
        tokens, attention = self.batch(texts_or_tokens)
        with hooks.keeping(self.parts, layer) as found, self._editing(tokens, attention):
            self._trunk(tokens, attention, positions)
        return found[0]

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of hidden states [..., d_model], with the architecture's scaling and soft cap."""
        if self.parts.unembedding is None:
            raise ValueError(f"{self.name} has no unembedding")
        return self.scaled_logits(self.parts.unembedding(hidden.to(self.dtype)))

    def scaled_logits(self, logits: Tensor) -> Tensor:
        """The architecture's scaling and soft cap on a plain product with the unembedding."""
        config = self.parts.config
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if scaling := getattr(config, "logits_scaling", None):
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    def logits(self, texts_or_tokens: Any) -> Tensor:
        """Logits [B, T, vocab]. Costs more than the trunk in small models with large vocabularies."""
        with torch.no_grad():
            return self.logits_of(self.hidden(texts_or_tokens))

    @property
    def unembedding(self) -> Tensor:
        """W_U [vocab, d_model], without the final norm."""
        if self.parts.unembedding is None:
            raise ValueError(f"{self.name} has no unembedding")
        return self.parts.unembedding.weight.detach()

    @property
    def final_norm(self) -> Any:
        """The norm between the last block and the unembedding; ValueError where there is none."""
        norm = child(self.parts.trunk, FINAL_NORM)
        if norm is None:
            raise ValueError(f"{self.name} has no final norm among the trunk's children (looked for {', '.join(FINAL_NORM)})")
        return norm

    def final_norm_gain(self) -> Tensor:
        """The gain [d_model] of the final norm, so that a direction's logits are W_U (gain * direction)."""
        norm = self.final_norm
        gain = norm.weight.detach().float()
        return 1 + gain if "gemma" in type(norm).__name__.lower() else gain  # Gemma's RMSNorm multiplies by 1 + w

    # -- editing -------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def edit(self, *edits: Edits) -> Iterator[Model]:
        """Apply `edits` to every forward pass inside the block."""
        each = flat(edits)
        for e in each:
            if self.of(self._own(e.read)) is not self.of(self._own(e.write)):  # here, not in the middle of a forward pass
                raise ValueError(f"an edit cannot read {e.read} in one model and write {e.write} in another")
        for model in (self, *self.companions.values()):
            model._edits.extend(_bare(e) for e in each if self.of(e.write) is model)
        try:
            yield self
        finally:
            for model in (self, *self.companions.values()):
                count = sum(self.of(e.write) is model for e in each)
                del model._edits[len(model._edits) - count :]

    def splice(self, dictionary: Any, *, keep_error: bool = True) -> contextlib.AbstractContextManager[Model]:
        """Run with the dictionary's output in place of the model's own; with `keep_error` the difference is added back."""
        return self.edit(dictionary.splice(keep_error=keep_error))

    @torch.no_grad()
    def generate(
        self,
        prompt: Any,
        *,
        max_new_tokens: int = 32,
        edits: Sequence[Edits] | Edit = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> str:
        """Continue `prompt` (a text or token ids), greedily at temperature 0; edits act on every decode step.

        Each edit's `applied` then holds the number of positions it changed, one entry a forward pass.
        """
        tokens, _ = self.batch(prompt)
        if len(tokens) > 1:
            raise ValueError(f"generate continues one prompt, got {len(tokens)}: call it once for each")
        edits = flat([edits] if isinstance(edits, Edit) else edits)
        for e in edits:
            e.applied.clear()
        new = continuations(
            self, tokens.tolist(), max_new_tokens=max_new_tokens, seeds=[seed], temperature=temperature, edits=edits
        )
        return self.tokenizer.decode(new[0])

    @torch.no_grad()
    def decode_step(
        self, tokens: Tensor, attention: Tensor, past: Any, *, resume: tuple[int, Any] | None = None
    ) -> tuple[Tensor, Any]:
        """The last position's hidden state [B, d_model] after new `tokens` [B, T], and the grown key-value cache.

        `attention` [B, all tokens so far] (bool) marks what is not padding; active edits act on the new tokens.
        `resume` = (layer, step_output(..., layer - 1)) starts at that layer, and grows the cache of the layers from there on alone.
        """
        starting = hooks.skipping(self.parts, *resume) if resume else contextlib.nullcontext()
        with starting, self._editing(tokens, attention[:, -tokens.shape[1] :]):
            out = self._step(tokens, attention, past)
        return out.last_hidden_state[:, -1], out.past_key_values

    @torch.no_grad()
    def step_output(self, tokens: Tensor, attention: Tensor, past: Any, layer: int) -> Any:
        """What block `layer` returns for new `tokens`, in the architecture's own form, for `decode_step(..., resume=...)`.

        Grows `past` of the layers up to there: give a copy.
        """
        with hooks.keeping(self.parts, layer) as found, self._editing(tokens, attention[:, -tokens.shape[1] :]):
            self._step(tokens, attention, past)
        return found[0]

    # -- machinery -----------------------------------------------------------------------------------------------
    def _editing(
        self, tokens: Tensor, attention: Tensor, rows: Tensor | None = None
    ) -> contextlib.AbstractContextManager[None]:
        ordinary = self.ordinary(tokens) if rows is None else rows.to(attention.device)
        return hooks.editing(self.parts, self._edits, attention, ordinary)

    def _step(self, tokens: Tensor, attention: Tensor, past: Any) -> Any:
        arguments: dict[str, Any] = {"attention_mask": attention.long(), "past_key_values": past, "use_cache": True}
        if "position_ids" in _signature(self.parts.trunk):
            arguments["position_ids"] = (attention.long().cumsum(-1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
        return self.parts.trunk(input_ids=tokens, **arguments)

    def _trunk(self, tokens: Tensor, attention: Tensor, positions: Tensor | None, past: Any = None) -> Tensor:
        arguments: dict[str, Any] = {"input_ids": tokens, "use_cache": past is not None}
        if past is not None:
            arguments["past_key_values"] = past
        if positions is not None:
            # transformers reads restarting position ids without a mask as packed documents and keeps them apart
            arguments["position_ids"] = positions.to(self.device)
        else:
            arguments["attention_mask"] = None if bool(attention.all()) else attention.long()
            arguments["position_ids"] = (attention.long().cumsum(-1) - 1).clamp_min(0)
        if "position_ids" not in _signature(self.parts.trunk):
            if positions is not None:
                raise ValueError(
                    f"{type(self.parts.trunk).__name__} takes no position ids: packed documents would see one another"
                )
            arguments.pop("position_ids")
        return self.parts.trunk(**arguments).last_hidden_state


def _bare(edit: Edit) -> Edit:
    """The edit as the model itself sees it: its sites without a model's name; `applied` stays the same list."""
    read, write = (Site(s.layer, s.kind) for s in (edit.read, edit.write))
    return replace(edit, read=read, write=write)


def _signature(module: nn.Module) -> set[str]:
    import inspect

    return set(inspect.signature(module.forward).parameters)
