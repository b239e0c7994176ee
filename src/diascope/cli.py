"""The command line: one verb a stage. Wrong input ends with one sentence and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from diascope.config import within
from diascope.progress import Bars

out = Console()


@dataclass
class Demo:
    """Train, evaluate and explore an SAE and a skip-transcoder on the real Gemma 3 270M, from nothing."""

    tokens: int = 250_000
    """Tokens of text to harvest."""
    text: str = "wikipedia-sample"
    """Training text; the sample holds about 650,000 tokens, wikipedia-sample+brown about 1,900,000 (brown needs npm)."""
    epochs: float = 2.0
    """Passes over the harvested rows."""
    seed: int = 0
    """Seed of the starting weights and of the order of rows."""
    eval_tokens: int = 16_384
    """Tokens of the evaluation text for L0, FVU and density."""
    ce_tokens: int = 2_048
    """Tokens of it for CE and KL; the unembedding costs more than the trunk."""
    workspace: Path = Path("workspace")
    """Folder for everything that is made; the same command goes on where it stopped."""
    serve: bool = True
    """Serve the explorer at the end."""
    port: int = 7400
    """Port of the explorer; 0 takes any free one."""

    def run(self) -> None:
        from diascope.explorer.server import bind
        from diascope.recipes.demo import demo

        if self.serve:
            bind(self.port).close()  # a port in use is said now, not at the end
        budget = {"epochs": self.epochs, "eval_tokens": self.eval_tokens, "ce_tokens": self.ce_tokens}
        _carry_out(demo(self.tokens, corpus=self.text, seed=self.seed, **budget), self.workspace)
        if self.serve:
            _explore(self.workspace, self.port, model=True)


@dataclass
class Train:
    """Train SAEs and skip-transcoders on any model and text, evaluate them and build their index."""

    site: tuple[str, ...] = ("L12.resid_post",)
    """Sites: L12.resid_post for an SAE, L12.mlp_in:L12.mlp_out for a skip-transcoder."""
    model: str = "gemma-3-270m"
    """Package alias, GGUF file, model folder or hub id."""
    text: str = "wikipedia-sample"
    """Training text: packaged corpus, .txt, .jsonl or .parquet file, or hf:<data set>."""
    field: str = "text"
    """Text column of jsonl, parquet and data sets."""
    tokens: int = 250_000
    """Tokens of text to harvest."""
    latents: int = 16384
    """Width of each dictionary."""
    l0: float = 60.0
    """Target number of active latents a token."""
    epochs: float = 2.0
    """Passes over the harvested rows."""
    eval_text: str = "held-out"
    """Evaluation text; held-out takes the training text's own held-out documents."""
    held_out: float = 0.1
    """Share of documents held out, by the hash of their names."""
    workspace: Path = Path("workspace")
    """Folder for everything that is made; the same command goes on where it stopped."""
    track: Literal["wandb", "trackio"] | None = None
    """Also send the training log to this tracker (install it first)."""

    def run(self) -> None:
        from diascope.recipes.gemma_scope_2 import small
        from diascope.recipes.run import RunRecipe
        from diascope.sites import Site

        pairs = tuple((a, b or a) for a, _, b in (s.partition(":") for s in self.site))
        pairs = tuple((str(Site.parse(a)), str(Site.parse(b))) for a, b in pairs)
        if not pairs or len({a == b for a, b in pairs}) != len(pairs):
            raise ValueError(
                "this command trains one SAE, one transcoder, or one of each; call it again with another --workspace"
            )
        training = small(pairs, d_sae=self.latents, l0=self.l0, tokens=self.tokens, epochs=self.epochs)
        recipe = RunRecipe(
            training, name="train", model=self.model, corpus=self.text, field=self.field, tokens=self.tokens,
            held_out=self.held_out, eval_corpus=self.eval_text,
        )  # fmt: skip
        _carry_out(recipe, self.workspace, self.track)


@dataclass
class Suite:
    """Train the release's catalogue for one model in one pass: every layer and site, transcoders, crosscoder and CLTs."""

    model: str = "gemma-3-270m"
    """Package alias, GGUF file, model folder or hub id."""
    layers: int = 18
    """Layers of that model."""
    text: str = "wikipedia-sample"
    """Training text: packaged corpus, .txt, .jsonl or .parquet file, or hf:<data set>."""
    field: str = "text"
    """Text column of jsonl, parquet and data sets."""
    tokens: int = 100_000
    """Tokens of text to harvest, each used once; all sites take 106 kB of disk a token on Gemma 3 270M."""
    latents: int = 2048
    """Width of each single-layer dictionary."""
    per_layer: int = 1024
    """Latents a layer of the CLTs and the crosscoder; 0 leaves them out."""
    workspace: Path = Path("suite")
    """Folder for everything that is made; the same command goes on where it stopped."""

    def run(self) -> None:
        from dataclasses import replace

        from diascope.recipes.suite import suite_cpu

        within("layers", self.layers, 4, 1000)
        recipe = suite_cpu(self.model, self.layers, tokens=self.tokens, latents=self.latents, per_layer=self.per_layer)
        if (
            self.text != "wikipedia-sample"
        ):  # thresholds are then set on the text's own held-out documents, and it is judged on them
            recipe = replace(recipe, corpus=self.text, field=self.field, calibration="held-out", eval_corpus="held-out")
        _carry_out(recipe, self.workspace, many=True)


@dataclass
class Finetune:
    """Fine-tune a dictionary end to end, on reconstruction and on what the model goes on to say: (MSE + a b KL) / (1 + b)."""

    dictionary: Annotated[str, tyro.conf.Positional]
    """Folder of any readable format, or another name of it; JumpReLU, one site."""
    target: Annotated[Path, tyro.conf.Positional]
    """Folder to write; it must not exist."""
    model: str = "gemma-3-270m"
    """The model that it was trained on."""
    text: str = "wikipedia-sample"
    """Text; its held-out documents set the thresholds."""
    field: str = "text"
    """Text column of jsonl, parquet and data sets."""
    tokens: int = 65_536
    """Tokens, each used once."""
    beta: float = 1.0
    """Weight of KL against MSE, both brought to the same size."""
    lr: float = 2e-3
    """Largest step of an entry, as a share of its tensor's root mean square."""
    seed: int = 0
    """Seed of the order of sequences."""

    def run(self) -> None:
        from diascope.dictionaries import load_dictionary, save_dictionary
        from diascope.models import load_model
        from diascope.recipes.end_to_end import EndToEnd, finetune_run

        within("tokens", self.tokens, 512, 2**60, "tokens, at least one sequence")
        within("beta", self.beta, 0, 1e6)
        within("lr", self.lr, 1e-9, 1)
        if self.target.exists():
            raise ValueError(f"{self.target} exists already: choose another folder, or delete it")
        d = load_dictionary(self.dictionary)
        with Bars(out) as bars:
            say = bars.stage("model", "")
            model = load_model(self.model, progress=lambda line: say(0, 0, line))
            say(1, 1, model.name)
            config = EndToEnd(beta=self.beta, lr=self.lr, seed=self.seed)
            tuned = finetune_run(
                model,
                d,
                config,
                text=self.text,
                field=self.field,
                tokens=self.tokens,
                progress=bars.stage("finetune", "sequences"),
            )
        save_dictionary(tuned, self.target)
        out.print(f"wrote {self.target}; compare: diascope eval {self.dictionary} {self.target}", markup=False)


@dataclass
class Eval:
    """Evaluate dictionaries of any readable format on text, beside controls."""

    dictionary: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders of any readable format, hub paths, SAELens releases and ids, or Neuronpedia ids."""
    sites: tuple[str, ...] = ()
    """Where they read and write, for formats that do not say: one site, or IN:OUT (several parted by commas)."""
    model: str = "gemma-3-270m"
    """The model that they were trained on."""
    text: str = "wikipedia-passages"
    """Evaluation text."""
    field: str = "text"
    """Text column of jsonl and parquet."""
    tokens: int = 16_384
    """Tokens for L0, FVU and density."""
    ce_tokens: int = 4_096
    """Tokens for CE and KL; the unembedding costs more than the trunk."""
    fit_text: str | None = "wikipedia-sample"
    """Text on which the controls are fitted; None evaluates without controls."""
    context: int = 512
    """Tokens a sequence."""
    json: Path | None = None
    """Also write the cards to this file."""

    def run(self) -> None:
        from diascope.dictionaries import load_dictionary
        from diascope.evals import evaluate, rows_of
        from diascope.models import load_model
        from diascope.storage.files import write_json
        from diascope.tokens import open_corpus, pack

        _some(self.dictionary)
        within("context", self.context, 32, 2**20, "tokens a sequence")
        within("tokens", self.tokens, self.context, 2**60, "tokens, at least one sequence")
        within("ce-tokens", self.ce_tokens, self.context, 2**60, "tokens, at least one sequence")
        if self.json and (self.json.is_dir() or not self.json.parent.is_dir()):
            raise ValueError(f"cannot write {self.json}: it is a folder, or its folder does not exist")
        dictionaries = {p: load_dictionary(p, sites=_ends(self.sites)) for p in self.dictionary}
        with Bars(out) as bars:
            say = bars.stage("model", "")
            model = load_model(self.model, progress=lambda line: say(0, 0, line))
            say(1, 1, model.name)
            sequences = pack(
                model, open_corpus(self.text, field=self.field).documents, context=self.context, max_tokens=self.tokens
            )
            rows = None
            if self.fit_text:
                other = open_corpus(self.fit_text, field=self.field).documents
                rows = rows_of(model, pack(model, other, context=self.context, max_tokens=8_192))
            results = evaluate(
                model,
                dictionaries,
                sequences,
                training_rows=rows,
                ce_tokens=self.ce_tokens,
                text=self.text,
                progress=bars.stage("evaluate", "maps"),
            )
        _tables({name: r.card() for name, r in results.items()})
        if self.json:
            write_json(self.json, {name: r.card() for name, r in results.items()})


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
        d = load_dictionary(self.source, sites=_ends(self.sites), model=self.model)
        save_dictionary(d, self.target, format=self.to)
        checked = "its probe went along" if d.probe is not None else "it has no probe to check the copy by"
        out.print(
            f"wrote {self.target} for {FORMATS[self.to].library}: {FORMATS[self.to].fidelity(d)}; {checked}", markup=False
        )


@dataclass
class Inspect:
    """Say what a dictionary is: kind, shapes, hook points, norms, provenance, and which formats could hold it."""

    dictionary: Annotated[str, tyro.conf.Positional]
    """Folder, hub path, SAELens release and id, or Neuronpedia id."""
    sites: tuple[str, ...] = ()
    """Where it reads and writes, for formats that do not say: one site, or IN:OUT (several parted by commas)."""
    model: str | None = None
    """Whose activations it reads, likewise."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        from diascope.dictionaries.inspection import inspect

        found = inspect(self.dictionary, sites=_ends(self.sites), model=self.model)
        if self.json:
            out.print_json(data=found.data())
            return
        from diascope.tables import inspection_table

        out.print(inspection_table(found.facts, found.shapes, found.formats))


def _ends(sites: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """("L1.mlp_in:L1.mlp_out",) as (sites in, sites out); several pairs side by side; None where nothing is said."""
    if not sites:
        return None
    pairs = [_pair(s) for entry in sites for s in entry.split(",")]
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)


def _pair(text: str) -> tuple[str, str]:
    """ "L1.mlp_in:L1.mlp_out" as two sites; "chat:L1.resid_post", a site with its model, as one."""
    from diascope.sites import Site

    read, _, written = text.partition(":")
    try:
        if written:
            return str(Site.parse(read)), str(Site.parse(written))
    except ValueError:
        pass  # what stands before the colon is a model's name
    site = str(Site.parse(text))
    return site, site


@dataclass
class Publish:
    """Prepare a workspace's dictionaries for others (folder tree, model card, evaluation, BibTeX) and push them to the hub."""

    workspace: Annotated[Path, tyro.conf.Positional]
    """A workspace made by `demo`, `train` or `suite`."""
    repository: str = ""
    """Where to push: owner/name; not needed with --dry-run."""
    target: Path | None = None
    """Folder to write; it must not exist. Default: WORKSPACE/publish."""
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
        folder = prepare(
            self.workspace,
            self.target or self.workspace / "publish",
            title=self.title,
            licence=self.licence,
            author=self.author,
        )
        out.print(f"prepared {folder}: README.md, CITATION.bib and the folders", markup=False)
        if not self.dry_run:
            out.print(f"pushed to {publish(folder, self.repository, private=not self.public)}", markup=False)


@dataclass
class Explore:
    """Serve the explorer for a workspace or an index folder."""

    folder: Annotated[Path, tyro.conf.Positional] = Path("workspace")
    """A workspace made by `demo` or `train`, or an index folder."""
    port: int = 7400
    """Port; 0 takes any free one."""
    model: bool = True
    """Load the model too, for trying texts; without it the explorer browses only and starts in a second."""

    def run(self) -> None:
        _explore(self.folder, self.port, model=self.model)


@dataclass
class Verify:
    """Check dictionaries against their probes, and stored examples against the model."""

    dictionary: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders or other names of dictionaries to check."""
    sites: tuple[str, ...] = ()
    """Where they read and write, for formats that do not say: one site, or IN:OUT (several parted by commas)."""
    model: str | None = None
    """The model through which stored examples (examples.safetensors) are run."""

    def run(self) -> None:
        from diascope.models import load_model
        from diascope.recipes.verify import verify

        _some(self.dictionary)
        model = load_model(self.model) if self.model else None
        failed = []
        for path in self.dictionary:
            try:
                v = verify(path, model, sites=_ends(self.sites))
            except ValueError as error:
                failed.append(str(error))
                continue
            found = "probes agree" if v.probes else "no probes"
            if v.examples:
                found += f"; {v.examples} stored activations, median relative error {v.median_error:.2g}"
            elif model:
                found += "; no stored examples, so the model was not needed"
            if v.ok:
                out.print(f"{path}: {found}", markup=False)
            else:
                failed.append(f"{path}: {found}: wrong hook, missing norm gain, or another model?")
        if failed:
            raise ValueError("\n".join(failed))


COMMANDS = {
    "demo": Demo, "train": Train, "suite": Suite, "finetune": Finetune, "eval": Eval, "convert": Convert, "inspect": Inspect, "publish": Publish, "explore": Explore, "verify": Verify,
}  # fmt: skip


def _some(folders: Sequence[object]) -> None:
    if not folders:
        raise ValueError("give at least one dictionary folder")


def _carry_out(recipe: object, workspace: Path, track: str | None = None, *, many: bool = False) -> None:
    from diascope.recipes.run import Run
    from diascope.storage.files import read_json
    from diascope.tables import catalogue_table, timings_line

    with Bars(out) as bars:
        run = Run(recipe, workspace, bars.stage, track)  # type: ignore[arg-type]
        if not run.finished:
            run.train()
            run.evaluate()
            run.index()
    cards = {n: read_json(run.folder(n) / "card.json") for n in run.names}
    if many:
        out.print(catalogue_table(cards))
    else:
        _tables(cards)
    if (workspace / "timings.json").exists():
        out.print(timings_line(read_json(workspace / "timings.json")), style="dim")
    for name, why in run.failed.items():
        out.print(f"health: {name} {why}", style="yellow", markup=False)
    where = f"dictionaries: {workspace / 'dictionaries'}; Gemma Scope 2 layout: {workspace / 'gemma-scope-2'}"
    out.print(where, style="dim", markup=False)
    out.print(f"look at them: diascope explore {workspace}", style="dim", markup=False)


def _tables(cards: dict[str, dict]) -> None:  # type: ignore[type-arg]
    from diascope.tables import evaluation_table

    for name, card in cards.items():
        out.print()
        out.print(evaluation_table(name, card))
    out.print()


def _explore(folder: Path, port: int, *, model: bool) -> None:
    from diascope.explorer.live import encode, opener
    from diascope.explorer.server import serve
    from diascope.latents.store import Index

    index = Index(folder / "index" if (folder / "index").is_dir() else folder)
    paths = {name: folder / "dictionaries" / name for name in index.sources}
    live = model and all(p.is_dir() for p in paths.values())
    serve(index, port=port, opener=opener(index.meta["model"], paths) if live else None, encode=encode, announce=_announce)


def _announce(url: str) -> None:
    out.print(f"\n[bold]Explorer:[/bold] [link={url}]{url}[/link]   (Ctrl-C stops it)", soft_wrap=True)


def main() -> None:
    """Entry point of the `diascope` command."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="diascope", description=__doc__)
    try:
        command.run()
    except KeyboardInterrupt as stop:
        out.print(f"[yellow]interrupted[/yellow] {stop}")
        sys.exit(130)
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("DIASCOPE_TRACEBACK"):
            raise
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
