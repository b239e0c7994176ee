"""Plain prose from the Brown corpus, which stores one word a tag: "The/at jury/nn said/vbd ,/," -> "The jury said,"."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

VERSION = 1  # part of the cache's name: raise it when the text that comes out changes
_FILE = re.compile(r"(?:^|/)(c[a-r]\d\d)$")


def samples(archive: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every sample of the corpus, in order of names."""
    with tarfile.open(archive) as tar:
        members = {m[1]: member for member in tar.getmembers() if (m := _FILE.search(member.name))}
        for name in sorted(members):
            file = tar.extractfile(members[name])
            assert file is not None
            yield name, prose(file.read().decode("utf-8"))


def prose(tagged: str) -> str:
    """The running text of one sample, one paragraph a line; the file has a sentence a line, and blank lines between paragraphs."""
    paragraphs: list[list[str]] = [[]]
    for line in tagged.splitlines():
        words = [token.rpartition("/")[0] for token in line.split()]
        if words:
            paragraphs[-1] += words
        elif paragraphs[-1]:
            paragraphs.append([])
    return "\n".join(_joined(words) for words in paragraphs if words)


def _joined(words: list[str]) -> str:
    """Words and punctuation as they are printed: `` and '' are quotation marks, and marks lean on their words."""
    text = " ".join(words)
    text = re.sub(r"`` ?", "\u201c", text)
    text = re.sub(r" ?''", "\u201d", text)
    text = re.sub(r" ([,.;:?!)\]])(?: \1)*", r"\1", text)
    text = re.sub(r"(?<=\w)\.\.(?!\.)", ".", text)  # "Jr." at the end of a sentence
    return re.sub(r"([(\[]) ", r"\1", text)
