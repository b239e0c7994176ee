"""The probing tasks of Kantamneni et al. 2025 (arXiv:2502.16681), as published in the package sae-probes (MIT).

113 binary tasks (a prompt, one of two labels), and other prompts out of distribution for eight of them. Prompts come in the order
of a keyed hash of their text, so that tasks over the same prompts choose the same ones; a prompt that stands under both labels is
left out.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache

import numpy as np

from diascope import rng
from diascope.evals.entry import Unmeasurable, fetched
from diascope.storage import PackageFile

SAE_PROBES = PackageFile(
    name="sae_probes-0.4.2.whl",
    pieces=(("sae-probes", "0.4.2", ""),),
    sha256="245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03",
    licence="MIT; the data sets inside keep their own",
    source="sae-probes 0.4.2: binary probing tasks of Kantamneni et al. 2025",
)
# The 24 tasks with the shortest prompts (13 tokens at most in the mean): what a laptop reads in a minute.
MINI = (
    "156_athlete_sport_baseball", "154_athlete_sport_football", "155_athlete_sport_basketball", "120_us_timezone_Chicago",
    "121_us_timezone_New_York", "122_us_timezone_Los_Angeles", "117_us_state_FL", "118_us_state_CA", "119_us_state_TX",
    "123_world_country_United_Kingdom", "124_world_country_United_States", "125_world_country_Italy", "126_art_type_book",
    "127_art_type_song", "128_art_type_movie", "5_hist_fig_ismale", "6_hist_fig_isamerican", "7_hist_fig_ispolitician",
    "114_nyc_borough_Manhattan", "115_nyc_borough_Brooklyn", "116_nyc_borough_Bronx", "87_glue_cola", "129_arith_mc_A",
    "130_temp_cat_Frequency",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Prompts with labels 0 and 1, each prompt once, and those from elsewhere where there are some."""

    name: str
    prompts: tuple[str, ...]
    labels: np.ndarray  # [n] 0 or 1
    elsewhere: tuple[str, ...] = ()
    labels_elsewhere: np.ndarray | None = None

    @property
    def identity(self) -> tuple[Hashable, ...]:
        """What tells it from other tasks: two of one name may have other prompts or labels."""
        other = b"" if self.labels_elsewhere is None else self.labels_elsewhere.tobytes()
        return self.name, self.prompts, self.labels.tobytes(), self.elsewhere, other

    def split(self, train: int, test: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of `train` and of at most `test` prompts, disjoint, half of each label; fewer where there are not enough.

        Unmeasurable below 8 of a label. The training prompts stand in an order in which the labels alternate.
        """
        sides = [np.flatnonzero(self.labels == label) for label in (0, 1)]
        room = min(map(len, sides))
        if room < 8:
            raise Unmeasurable(f"{self.name} has {room} prompts of one label: a probe needs 8 of each")
        n = min(train // 2, room * 2 // 3)
        m = min(test // 2, room - n)
        return (np.stack([s[:n] for s in sides], 1).ravel(), np.stack([s[n : n + m] for s in sides], 1).ravel())


def task_names(*, progress: Callable[[str], None] = lambda _: None) -> tuple[str, ...]:
    """The names of all binary tasks, by number."""
    table = _rows(_wheel(progress), "sae_probes/data/probing_datasets_MASTER.csv.zst")
    names = [r["Dataset save name"].rpartition("/")[2].removesuffix(".csv") for r in table if r["Data type"] == BINARY]
    return tuple(sorted(names, key=lambda n: int(n.partition("_")[0])))


def load_task(name: str, *, seed: int = 0, progress: Callable[[str], None] = lambda _: None) -> Task:
    """One task. Raises ValueError for a name that is none, Unmeasurable where the package cannot be fetched."""
    wheel = _wheel(progress)
    place, other = f"sae_probes/data/cleaned_data/{name}.csv.zst", f"sae_probes/data/OOD data/{name}_OOD.csv.zst"
    if place not in wheel.namelist():
        raise ValueError(f"there is no probing task {name!r}: the names are those of diascope.evals.probe_sets.task_names()")
    rows = _rows(wheel, place)
    one = sorted({r["target"] for r in rows})[-1]
    prompts, labels = _prompts(rows, one, seed)
    if other not in wheel.namelist():
        return Task(name, prompts, labels)
    elsewhere, its = _prompts(_rows(wheel, other), one, seed)
    known = set(prompts)
    new = [i for i, t in enumerate(elsewhere) if t not in known]  # some stand in both
    return Task(name, prompts, labels, tuple(elsewhere[i] for i in new), its[new])


BINARY = "Binary Classification"


@cache
def _open(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _wheel(progress: Callable[[str], None]) -> zipfile.ZipFile:
    return _open(str(fetched(SAE_PROBES, progress)))


def _rows(wheel: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(wheel.read(name))) as stream:
        text = stream.read().decode("utf-8")
    csv.field_size_limit(2**31 - 1)
    return list(csv.DictReader(io.StringIO(text)))


def _prompts(rows: list[dict[str, str]], one: str, seed: int) -> tuple[tuple[str, ...], np.ndarray]:
    label: dict[str, int] = {}
    unclear = set()
    for row in rows:
        text, value = row["prompt"], int(row["target"] == one)
        if text and label.setdefault(text, value) != value:
            unclear.add(text)
    texts = sorted((t for t in label if t not in unclear), key=lambda t: rng.unit_hash(seed, t))
    return tuple(texts), np.array([label[t] for t in texts], np.int64)
