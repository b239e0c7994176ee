"""Verbs that carry dictionaries to others: convert, publish."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diascope.cli.terminal import ends, out


@dataclass
class Convert:
    """Write a dictionary in another library's layout, and say what survives."""

    source: Annotated[str, tyro.conf.Positional]
    """Folder, hub path, SAELens release and id, or Neuronpedia id; the format is detected."""
    target: Annotated[Path, tyro.conf.Positional]
    """Folder to write; it must not exist."""
    to: Literal[
        "diascope",
        "gemma-scope-1",
        "gemma-scope-2",
        "saelens",
        "sparsify",
        "llamascopium",
        "dictionary-learning",
        "circuit-tracer",
    ] = "gemma-scope-2"
    """Layout to write."""
    sites: tuple[str, ...] = ()
    """Where it reads and writes, for sources that do not say: one site, or IN:OUT (several parted by commas)."""
    model: str | None = None
    """Whose activations it reads, for sources that do not say."""

    def run(self) -> None:
        from diascope.dictionaries import load_dictionary, save_dictionary
        from diascope.dictionaries.formats import FORMATS

        source = Path(self.source).resolve()
        if source.exists() and source in self.target.resolve().parents:
            raise ValueError(f"{self.target} lies inside {self.source}: choose a target outside the source")
        d = load_dictionary(self.source, sites=ends(self.sites), model=self.model)
        save_dictionary(d, self.target, format=self.to)
        checked = "its probe went along" if d.probe is not None else "it has no probe to check the copy by"
        out.print(
            f"wrote {self.target} for {FORMATS[self.to].library}: {FORMATS[self.to].fidelity(d)}; {checked}", markup=False
        )


@dataclass
class Publish:
    """Prepare a workspace's dictionaries for others (folder tree, model card, evaluation, BibTeX) and push them to the hub."""

    workspace: Annotated[Path, tyro.conf.Positional]
    """A workspace made by `demo`, `train` or `suite`."""
    repository: str = ""
    """Where to push: owner/name; not needed with --dry-run."""
    target: Path | None = None
    """Folder to write; it must not exist, or be one prepared before, which is then pushed. Default: WORKSPACE/publish."""
    title: str = "Sparse dictionaries"
    """Title of the model card."""
    author: str = ""
    """Who made them, for the BibTeX entry."""
    licence: str = "cc-by-4.0"
    """Licence of the dictionaries, as hubs write it; the model and the texts keep their own."""
    public: bool = False
    """Make the repository public."""
    dry_run: bool = False
    """Only prepare the folder; nothing leaves this machine."""

    def run(self) -> None:
        from diascope.recipes.publish import prepare, publish
        from diascope.storage.hub import repository_name

        if not self.dry_run and not self.repository:
            raise ValueError("say where to push (--repository owner/name), or only prepare the folder (--dry-run)")
        if not self.dry_run:
            repository_name(self.repository)  # a wrong name is said before anything is written
        folder = self.target or self.workspace / "publish"
        if not self.dry_run and (folder / "README.md").is_file():
            out.print(f"{folder} was prepared before: it goes as it is (to make it anew, delete it)", markup=False)
        else:
            prepare(self.workspace, folder, title=self.title, licence=self.licence, author=self.author)
            out.print(f"prepared {folder}: README.md, CITATION.bib and the folders", markup=False)
        if not self.dry_run:
            out.print(f"pushed to {publish(folder, self.repository, private=not self.public)}", markup=False)
