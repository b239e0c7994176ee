"""Two "hosts", network namespaces joined by a veth pair, train the same dictionaries as one process, and survive the loss of one.

    python tests/distributed/two_hosts.py --workspace DIR        (Linux, root)

1. One process alone, 50 steps: the reference.
2. torchrun on each host with a static rendezvous, two processes in all, one on the data axis each; at step 25 the one on the
   second host is killed with SIGKILL. Both torchruns must end, with an exit status that is not 0.
3. The same two commands again: they go on from the last checkpoint. The largest difference of any parameter from 1 must be below 1e-5.

Prints one line of JSON; docs/scale.md has what it gave. The hosts share a folder, as a cluster shares a file system.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from test_team import ALL, BLOCKS, KINDS, SCRIPT

from diascope.training.shards import read
from toy_rows import write_rows

HOSTS = {"diascope-a": ("da0", "10.77.0.1"), "diascope-b": ("db0", "10.77.0.2")}
PORT = 29511


@contextmanager
def hosts() -> Iterator[None]:
    """Two network namespaces that see each other and nothing else."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    names, (a, b) = list(HOSTS), [device for device, _ in HOSTS.values()]
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
        ip("netns", "add", name)
    try:
        ip("link", "add", a, "type", "veth", "peer", "name", b)
        for name, (device, address) in HOSTS.items():
            ip("link", "set", device, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            for d in (device, "lo"):
                ip("-n", name, "link", "set", d, "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def torchrun(rank: int, spool: Path, folder: Path, steps: int, die: str) -> subprocess.Popen[str]:
    """torchrun on host `rank`."""
    (name, (device, _)), first = list(HOSTS.items())[rank], next(iter(HOSTS.values()))[1]
    command = [
        "ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--node-rank", rank, "--nproc-per-node", 1,
        "--rdzv-backend", "static", "--master-addr", first, "--master-port", PORT, SCRIPT, spool, folder, "data=2", f"{KINDS},late", steps,
    ]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": device, "TP_SOCKET_IFNAME": device, "DIE": die}
    return subprocess.Popen(list(map(str, command)), env=env, stderr=subprocess.PIPE, text=True)


def both(spool: Path, folder: Path, steps: int, die: str = "") -> tuple[list[int], float]:
    """Exit statuses of both hosts, and how long they took."""
    began = time.monotonic()
    processes = [torchrun(rank, spool, folder, steps, die) for rank in range(2)]
    said = [p.communicate(timeout=600)[1] for p in processes]
    codes = [p.returncode for p in processes]
    if not die and any(codes):
        raise SystemExit(said[codes.index(next(c for c in codes if c))][-3000:])
    return codes, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    args = parser.parse_args()
    rows, steps = args.workspace / "spool", 50
    write_rows(rows)
    one, two = args.workspace / "one", args.workspace / "two"
    subprocess.run(
        [sys.executable, str(SCRIPT), str(rows), str(one), "", f"{KINDS},late", str(steps)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )  # fmt: skip
    with hosts():
        lost, seconds = both(rows, two, steps, "1:25")
        stopped = json.loads((two / "checkpoint" / "state.json").read_text())["step"]
        if 0 in lost or any(two.glob("*.pt")):
            raise SystemExit(f"one host was lost and the run ended well: {lost}")
        both(rows, two, steps)
    worst = 0.0
    for name in ALL:
        a, b = (read(f / "checkpoint", name, BLOCKS[name], 0, 1) for f in (one, two))
        worst = max(
            worst, *(float((a[k].double() - b[k].double()).abs().max()) for k in a if not k.startswith(("first", "second", "since", "scalars")))
        )  # fmt: skip
    print(json.dumps({"members": len(ALL), "steps": steps, "exit_when_one_was_lost": lost, "seconds_until_both_had_ended": round(seconds, 1),
                      "checkpoint_at_step": stopped, "largest_difference": worst, "below": 1e-5}))  # fmt: skip
    if not worst < 1e-5:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
