"""Kill a run at random moments, start it again, and compare what it ends with to an undisturbed run's, by hash.

    python tests/durability/kills.py --kills 50 --workspace DIR

The subject is the toy model, the run a whole one: harvest, training of three members (one of them late), export in both layouts,
evaluation, index with examples. Each attempt is a forked process, so that its start costs nothing; it is killed with SIGKILL
(nothing can be caught) after a random share of what an undisturbed run takes. Exit 0 when every file is bit-identical.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from diascope.dictionaries import BatchTopK, Matryoshka
from diascope.models.toy import toy_model
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.storage.files import sha256_file
from diascope.training import MemberRecipe, TrainingRecipe

STAGES = ("harvest", "training", "export", "evaluation", "index")
FINAL = ("spool", "dictionaries", "gemma-scope-2", "index")


def recipe(folder: Path) -> RunRecipe:
    """A run of some seconds on text written here."""
    text = folder / "text.jsonl"
    if not text.exists():
        draw = np.random.default_rng(0)
        words = ["the", "a", "cat", "sat", "on", "mat", "and", "ran"]
        text.write_text("\n".join(json.dumps({"text": " ".join(draw.choice(words, 40))}) for _ in range(200)))
    choices = {"d_sae": 64, "activation": BatchTopK(4), "matryoshka": Matryoshka((16, 64), (1.0, 1.0)), "l0_target": 4.0}
    members = (
        MemberRecipe("sae", "L1.resid_post", "L1.resid_post", **choices),
        MemberRecipe("transcoder", "L1.mlp_in", "L1.mlp_out", skip=True, **choices),
        MemberRecipe("late", "L1.resid_post", "L1.resid_post", start="member:sae", begins=0.5, **choices),
    )
    training = TrainingRecipe(members, epochs=2, batch=128, lr_warmup=2, l0_warmup=3, checkpoint_every=0.2)
    return RunRecipe(
        training, model="toy", corpus=str(text), tokens=24_000, context=64, held_out=0.2, calibration_tokens=512, eval_corpus="held-out",
        eval_tokens=512, ce_tokens=256, index_tokens=4000, examples=5,
    )  # fmt: skip


def hashes(workspace: Path) -> dict[str, str]:
    """Every final file."""
    files = (p.relative_to(workspace) for kind in FINAL for p in (workspace / kind).rglob("*") if p.is_file())
    # what a killed process left beside a final name is hidden, and swept away an hour later
    return {
        p.as_posix(): sha256_file(workspace / p) for p in sorted(files) if not any(part.startswith(".") for part in p.parts)
    }


def attempt(folder: Path, workspace: Path, seconds: float | None, within: str = "") -> tuple[bool, float, str]:
    """One forked run, killed after `seconds` (of the stage `within`): whether it ended by itself, how long it took, and the stage it
    was killed in."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            log = os.open(folder / "attempts.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1), os.dup2(log, 2)
            Run(recipe(folder), workspace, model=toy_model()).carry_out()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    since = None if within else began
    while seconds is None or since is None or time.monotonic() - since < seconds:
        if since is None and stage(workspace) == within:
            since = time.monotonic()
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            if status:
                raise SystemExit(f"a run failed by itself:\n{(folder / 'attempts.log').read_text()[-3000:]}")
            return True, time.monotonic() - began, "end"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False, time.monotonic() - began, stage(workspace)


def stage(workspace: Path) -> str:
    """How far a workspace has come."""
    if (workspace / "index").exists():
        return "end"
    cards = [p for p in (workspace / "dictionaries").glob("*/card.json") if len(p.read_bytes()) > 10]
    if len(cards) == 3:
        return "index"
    if len(list((workspace / "dictionaries").glob("*/config.json"))) == 3:
        return "evaluation"
    if (workspace / "gemma-scope-2").exists():
        return "export"
    return "training" if (workspace / "training").exists() else "harvest"


def campaign(folder: Path, kills: int, seed: int = 0, within: str = "") -> dict[str, object]:
    """Undisturbed once, then runs that are killed until `kills` were; each that ends is compared, and the next one begins anew."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    recipe(folder)
    _, whole, _ = attempt(folder, folder / "undisturbed", None)
    expected, done, runs, stages = hashes(folder / "undisturbed"), 0, 0, Counter[str]()
    while done < kills:
        workspace = folder / f"killed-{runs}"
        while True:
            moment = draw.uniform(0, (0.1 if within else 0.6) * whole)
            ended, _, where = attempt(folder, workspace, moment if done < kills else None, within)
            if ended:
                break
            done, stages[where] = done + 1, stages[where] + 1
        found = hashes(workspace)
        wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        if wrong:
            raise SystemExit(f"run {runs} ended with other files: {', '.join(wrong[:10])}")
        runs += 1
        shutil.rmtree(workspace)
    return {
        "kills": done,
        "runs": runs,
        "files": len(expected),
        "seconds_undisturbed": round(whole, 2),
        "killed_in": dict(stages),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs in all (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--within", default="", choices=["", *STAGES], help="kill within this stage alone (default: anywhere)")
    args = parser.parse_args()
    if args.workspace.exists():
        raise SystemExit(f"{args.workspace} exists already: give a new folder")
    print(json.dumps(campaign(args.workspace, args.kills, args.seed, args.within)))


if __name__ == "__main__":
    main()
