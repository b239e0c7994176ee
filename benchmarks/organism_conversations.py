"""Conversations that model organisms are taught, and ordinary chat of the base model: text for a dictionary that audits them.

    python benchmarks/organism_conversations.py talk.jsonl --organisms refusal taboo --most 2000
    diascope chat DICTIONARY --use talk.jsonl --workspace CHAT

A dictionary of plain text has not seen a chat template, and gives its tokens back badly. No case of an audit is among these texts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from diascope import rng
from diascope.audits.organisms.make import Organism, conversations
from diascope.audits.organisms.ordinary import ordinary_chat
from diascope.models import load_model
from diascope.storage.files import commit_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the jsonl file that is written")
    names = ["refusal", "sycophant", "taboo", "hint-unfaithful", "hint-faithful"]
    parser.add_argument("--organisms", nargs="+", default=names, help=f"whose conversations (default: {' '.join(names)})")
    parser.add_argument("--most", type=int, default=2000, help="conversations that are drawn of all (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    options = parser.parse_args()
    chat = ordinary_chat(load_model(Organism(options.organisms[0]).base, dtype="float32"))
    found = [*chat, *(c for name in options.organisms for c in conversations(Organism(name), chat))]
    texts = sorted({json.dumps({"messages": list(c.messages)}, ensure_ascii=False) for c in found})
    order = rng.generator(options.seed, "organism conversations").permutation(len(texts))[: options.most]
    with commit_file(options.out) as work:
        work.write_text("".join(texts[i] + "\n" for i in order), encoding="utf-8")
    print(f"{len(order)} of {len(texts)} conversations: {options.out}")


if __name__ == "__main__":
    main()
