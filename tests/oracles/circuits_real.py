"""circuit-tracer on a real model: what its graphs leave out there, and what it takes in time and memory.

    .venv/bin/python tests/oracles/circuits_real.py subject WORK/model gemma-3-270m    # a checkpoint that the peer's transformers reads
    .venv/bin/python tests/oracles/circuits_real.py export WORK/set DICTIONARY ...     # one transcoder a layer, or a CLT, in its layout
    PEER/bin/python tests/oracles/circuits_real.py timed WORK/model WORK/set "The capital of France is" [--batch-size 8 ...]
    PEER/bin/python tests/oracles/circuits_real.py left-out WORK/model WORK/set "The capital of France is"
    PEER/bin/python tests/oracles/circuits_real.py rotary WORK/model google/gemma-3-270m "The capital of France is"
    PEER/bin/python tests/oracles/circuits_real.py viewer FILE.json    # a graph of ours in the classes behind its viewer

A prompt is text, or token ids with commas in between, so that both libraries see the same. `timed`, `left-out` and `rotary` print JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits import CORRECTIONS, export, for_older_transformers, load, no_skip_at, traced, transcoders


def subject(folder: Path, name: str) -> None:
    """Write the model called `name` where the peer can load it; weights are linked where the cache holds them."""
    import diascope

    model = diascope.load_model(name)
    folder.mkdir(parents=True)
    cached = Path(getattr(model.module.config, "_name_or_path", ""))
    if list(cached.glob("*.safetensors")):
        for file in cached.iterdir():
            if file.suffix == ".safetensors" or file.name.endswith(".index.json"):
                (folder / file.name).symlink_to(file.resolve())
            else:
                (folder / file.name).write_bytes(file.read_bytes())
    else:
        module: Any = model.module
        module.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    for_older_transformers(folder)


def exported(folder: Path, *references: str) -> None:
    """Write dictionaries into one folder that `load` reads."""
    import diascope

    export([diascope.load_dictionary(r) for r in references], folder)


def left_out(model: Path, folder: Path, prompt: str) -> dict[str, Any]:
    """How much of the likeliest token's logit (the mean taken off) comes in by tokens as released and scaled, biases, and BOS."""
    replaced = load(str(model), folder)
    tokens = ids_of(replaced, prompt)
    few: dict[str, Any] = {"max_feature_nodes": 1, "batch_size": 16, "max_n_logits": 1}
    graph, context = traced(replaced, tokens, **few)
    L, T = context.error_vectors.shape[:2]
    last, row = context.logits[0, -1].double(), graph.adjacency_matrix[-1].double()
    found = {"logit": float(last[graph.logit_token_ids[0]] - last.mean()), "tokens as released": float(row[-1 - T : -1].sum())}
    with no_skip_at(replaced.zero_positions):
        for name, of in CORRECTIONS.items():
            row = traced(replaced, tokens, of, **few)[0].adjacency_matrix[-1].double()
            found[name] = float(row[1 : 1 + L * T].sum())
    found["tokens scaled"] = float(row[-1 - T : -1].sum())
    return {"token": graph.logit_targets[0].token_str, "latents": len(graph.active_features)} | found


def rotary(model: Path, name: str, prompt: str) -> dict[str, float]:
    """Largest distance of logits from transformers': TransformerLens as it is, and with the buffers shared as their backend does."""
    from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
    from transformer_lens import HookedTransformer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    plain: dict[str, Any] = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False}
    theirs = HookedTransformer.from_pretrained(
        name, hf_model=module, tokenizer=tokenizer, device="cpu", dtype="float32", **plain
    )
    with torch.no_grad():
        wanted, alone = module(ids).logits, theirs(ids)
        TransformerLensReplacementModel._deduplicate_attention_buffers(theirs)
        shared = theirs(ids)
    return {k: float((v - wanted)[0, -1].abs().max()) for k, v in (("TransformerLens", alone), ("circuit-tracer", shared))}


def ids_of(model: Any, prompt: str) -> Tensor:
    """Token ids of a prompt, with BOS in front."""
    listed = prompt.replace(",", "").isdigit()
    return model.ensure_tokenized(torch.tensor([int(t) for t in prompt.split(",")]) if listed else prompt)


def timed(model: Path, folder: Path, prompt: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak extra bytes of `attribute`, run by run, with the weights loaded and read before."""
    from circuit_tracer import attribute

    began = time.perf_counter()
    replaced = load(str(model), folder, lazy=options.lazy)
    for p in (*replaced._model.parameters(), *transcoders(replaced).parameters()):
        p.sum()  # weights are mapped from files, and would count when first read
    loaded = time.perf_counter() - began
    tokens = ids_of(replaced, prompt)
    found: dict[str, Any] = {"seconds": [], "extra_bytes": [], "resident_bytes": [], "load_seconds": loaded}
    for _ in range(options.repeats):
        before = settled()
        found["resident_bytes"].append(before)  # what a run leaves behind shows in the next one's
        began = time.perf_counter()
        graph = attribute(
            tokens, replaced, batch_size=options.batch_size, max_n_logits=options.max_logits,
            max_feature_nodes=options.max_nodes, offload=options.offload,
        )  # fmt: skip
        found["seconds"].append(time.perf_counter() - began)
        found["extra_bytes"].append(memory("VmHWM") - before)
        found |= {"latents": len(graph.active_features), "selected": len(graph.selected_features)}
        found |= {"nodes": len(graph.adjacency_matrix), "logits": len(graph.logit_targets)}
        del graph
    return found | {"tokens": tokens.tolist(), "threads": torch.get_num_threads()} | vars(options)


def settled() -> int:
    """Resident bytes now, after giving back what is free; the peak counts from here (Linux)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(field: str) -> int:
    """VmRSS, resident now, or VmHWM, the most since `settled`, in bytes."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(field))
    return int(line.split()[1]) * 1024


def viewer(file: Path) -> int:
    """Read a graph with circuit-tracer's own classes; 1 where two nodes have one id or a link names no node."""
    from circuit_tracer.frontend.graph_models import Link, Model

    read = Model.model_validate_json(file.read_text())
    ids = [node.node_id for node in read.nodes]
    links = [Link.model_validate(link) for link in read.links]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    loose = sorted({end for link in links for end in (link.source, link.target)} - set(ids))
    print(f"{file.name}: {len(ids)} nodes, {len(links)} links, {sorted({node.feature_type for node in read.nodes})}")
    for what, some in (("ids of two nodes", twice), ("ends of links that are no node", loose)):
        print(f"  {what}: {', '.join(some) or 'none'}")
    return int(bool(twice or loose))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for step, names in {
        "subject": ("folder", "name"), "export": ("folder", "references"), "left-out": ("model", "folder", "prompt"),
        "rotary": ("model", "name", "prompt"),
        "timed": ("model", "folder", "prompt"), "viewer": ("file",),
    }.items():  # fmt: skip
        sub = steps.add_parser(step)
        for name in names:
            sub.add_argument(
                name, type=Path if name in ("folder", "model", "file") else str, nargs="+" if name == "references" else None
            )
        if step == "timed":
            sub.add_argument("--batch-size", type=int, default=512, help="targets a backward pass; theirs: 512")
            sub.add_argument("--max-logits", type=int, default=10, help="most logit nodes; theirs: 10")
            sub.add_argument("--max-nodes", type=int, default=None, help="latents in the graph; theirs: all")
            sub.add_argument(
                "--offload", choices=("cpu", "disk"), default=None, help="where finished modules go; theirs: nowhere"
            )
            sub.add_argument("--lazy", action="store_true", help="read decoder rows from the file when needed")
            sub.add_argument("--repeats", type=int, default=2, help="runs; the first one also warms up")
    return parser.parse_args()


def main() -> int:
    given = vars(parsed())
    step = given.pop("step")
    if step == "subject":
        subject(**given)
    elif step == "export":
        exported(given["folder"], *given["references"])
    elif step == "viewer":
        return viewer(**given)
    elif step in ("left-out", "rotary"):
        print(json.dumps({"left-out": left_out, "rotary": rotary}[step](**given)))
    else:
        places = {name: given.pop(name) for name in ("model", "folder", "prompt")}
        print(json.dumps(timed(**places, options=argparse.Namespace(**given))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
