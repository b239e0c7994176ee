"""Run a Gemma Scope 2 folder through SAELens' own loader, offline: the oracle behind tests/dictionaries/golden.

    python saelens.py FOLDER INPUTS.npy OUT.npz [SAE_ID]

Needs an environment of its own (pip install torch==2.13.0, then sae-lens==6.54.12). SAELens takes kind and layer from
the path, has no local-path option for this layout, and asks for tensor shapes by HTTP: two of its functions are
replaced by ones that read the folder. `sae(x)` is used because `decode(encode(x))` drops the affine term there.
"""

import json
import os
import re
import sys
from pathlib import Path
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from safetensors import safe_open

folder = Path(sys.argv[1]).resolve()
sae_id = sys.argv[4] if len(sys.argv) > 4 else f"{folder.parent.name}/{folder.name}"
assert re.search(r"layer_\d+", sae_id), f"SAELens needs kind and layer in the path, got {sae_id}"


def local(repo_id: str, filename: str, **_: object) -> str:
    return str(folder / Path(filename).name)


def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
    with safe_open(local(repo_id, filename), "pt") as file:
        return {k: list(file.get_slice(k).get_shape()) for k in file.keys()}


with mock.patch.object(loaders, "hf_hub_download", local), mock.patch.object(loaders, "get_safetensors_tensor_shapes", shapes):
    sae = SAE.from_pretrained("local/folder", sae_id, converter=loaders.gemma_3_sae_huggingface_loader)
x = torch.from_numpy(np.load(sys.argv[2]).astype(np.float32))
with torch.no_grad():
    latents, output = sae.encode(x), sae(x)
np.savez_compressed(sys.argv[3], x=x.numpy(), latents=latents.numpy(), output=output.numpy())
print(
    json.dumps({"sae_id": sae_id, "class": type(sae).__name__, "hook": sae.cfg.to_dict().get("metadata", {}).get("hook_name")})
)
