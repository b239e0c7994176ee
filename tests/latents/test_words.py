"""Full-text search of descriptions, beside SQLite's own FTS5 as it ranked them before: the same hits, in the same order."""

import json
import re
import sqlite3

import msgspec
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from diascope.latents.describe import shelf as shelves
from diascope.latents.describe.shelf import DERIVED, NAME, Description, Shelf, shelve, write_shelf
from diascope.latents.describe.words import NoSearch, Terms, Words
from diascope.latents.order import smallest
from diascope.latents.store import Index, write_source
from diascope.storage.seals import seal

PIECES = [
    "river", "rivers", "Rivers'", "riverbank", "run", "running", "ran", "lake", "Lakes,", "Zürich", "zurich", "Zu\u0308rich", "naïve",
    "snake_case", "foo_bar", "bar", "it's", "e-mail", "x²", "½", "東京", "東京都", "привет", "Straße", "ﬁne", "ok", "→", ";", "__",
    "a", "A", "1,000", "3.14", "\x00", "\u00a0river\u2003lake", "tab\tlake", "new\nline", "\x1fsep", "🙂", "🙂river", "word" * 9000,
    "generalizations", "\u0301lone", "ﷺ", "\ue000", "İstanbul",
]  # fmt: skip
QUERIES = [
    "river", "RIVERS", "riv", "r", "running", "lake river", "river lake", "river river", "zürich", "zu\u0308rich", "東", "東京", "привет",
    "snake_case", "snake", "foo_bar", "foo_bar river", "bar", "it's", "e-mail", "x²", "½", "strasse", "Straße", "fine", "__", "__ river",
    "a", "1,000", "3.14 a", "→", ";", "🙂", "lone", "\u0301lone", "zebra", "zebra river", "generalize", "sep", "word", "\ue000", "ok ok lake",
    "İstanbul", "istanbul", "'", "a AND b", "NEAR(river lake)", "\x00",
]  # fmt: skip


def as_before(latents, text):
    """Hits of `text` by FTS5 alone, as the search was first written."""
    text = text.strip()
    words = re.findall(r"\w+", text)
    if not words:
        return sorted(j for j, found in latents.items() if any(text in d.text for d in found))
    table = sqlite3.connect(":memory:")
    table.execute("CREATE VIRTUAL TABLE texts USING fts5(text, tokenize='porter unicode61 remove_diacritics 2')")
    lines = ((j, "\n".join(d.text for d in found)) for j, found in latents.items() if found)
    table.executemany("INSERT INTO texts(rowid, text) VALUES (?, ?)", lines)
    query = " ".join(f'"{word}"*' for word in words)
    return [row[0] for row in table.execute("SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY rank, rowid", (query,))]


def some(count, seed, longest=9):
    """Descriptions of about two of three latents below 2 * count, some by two writers."""
    g = np.random.default_rng(seed)
    found = {}
    for j in np.sort(g.choice(2 * count, count, replace=False)).tolist():
        texts = [" ".join(g.choice(PIECES, g.integers(1, longest))) for _ in range(g.integers(1, 3))]
        found[j] = [Description(f"writer {i}", text, {"detection": float(g.random())}) for i, text in enumerate(texts)]
    return found


@pytest.fixture(scope="module")
def described():
    return some(400, 0)


@pytest.fixture(scope="module", params=["in memory", "by the derived file", "by the JSON alone"])
def shelf(request, described, tmp_path_factory):
    if request.param == "in memory":
        return Shelf(described)
    folder = tmp_path_factory.mktemp("source")
    write_shelf(folder / NAME, described)
    if request.param == "by the JSON alone":
        (folder / DERIVED).unlink()
    return Shelf.open(folder)


@pytest.mark.parametrize("query", QUERIES)
def test_hits_ranking_and_totals_are_those_of_fts5(shelf, described, query):
    expected = as_before(described, query)
    assert shelf.search(query) == expected
    assert shelf.find(query, offset=3, limit=10) == (len(expected), expected[3:13])
    below = [j for j in expected if j < 300]
    assert shelf.find(query, limit=5, below=300) == (len(below), below[:5])
    assert shelf.find(query, offset=len(expected), limit=5) == (len(expected), [])


def test_the_queries_find_something_and_most_are_ranked_here(shelf, described):
    assert sum(bool(as_before(described, q)) for q in QUERIES) > 30
    taken = [q for q in QUERIES if (words := re.findall(r"\w+", q)) and shelf._taken_apart(words)]
    assert len(taken) > 30 and "foo_bar" not in taken and "__" not in taken


def test_equal_texts_come_by_number_and_unequal_ones_by_rank():
    """With few distinct texts nearly every score is one of many; pages must cut them where the whole order would."""
    g = np.random.default_rng(1)
    words = ["river", "town", "king", "light"]
    latents = {j: [Description("x", " ".join(g.choice(words, g.integers(1, 5))))] for j in range(3000)}
    shelf, queries = Shelf(latents), ["river", "town king", "king king", "li to", "river town king light"]
    for query in queries:
        expected = as_before(latents, query)
        assert len(expected) > 50
        for offset in (0, 1, 37, len(expected) - 3):
            assert shelf.find(query, offset=offset, limit=20) == (len(expected), expected[offset : offset + 20])


def test_scores_are_those_of_fts5():
    """Words in more than half of the texts and in few of them, some as beginnings of several terms."""
    g = np.random.default_rng(2)
    texts = {
        j: " ".join(g.choice(["river", "riverside", "town", "king"], g.integers(1, 9), p=[0.7, 0.1, 0.1, 0.1]))
        for j in range(200)
    }
    table = sqlite3.connect(":memory:")
    table.execute("CREATE VIRTUAL TABLE texts USING fts5(text, tokenize='porter unicode61 remove_diacritics 2')")
    table.executemany("INSERT INTO texts(rowid, text) VALUES (?, ?)", texts.items())
    words = Words.build(texts)
    for query in (["river"], ["town"], ["river", "town"], ["king", "town", "king"], ["riversid", "river"]):
        asked = " ".join(f'"{word}"*' for word in query)
        expected = table.execute("SELECT rowid, -rank FROM texts WHERE texts MATCH ? ORDER BY rowid", (asked,)).fetchall()
        rows, scores = words._scores([word.encode() for word in query], None)
        assert rows.tolist() == [j for j, _ in expected] and len(rows) > 5
        assert np.allclose(scores, [score for _, score in expected], rtol=1e-14, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_small_and_lopsided_shelves_rank_the_same(seed):
    latents = some([1, 2, 7, 40][seed], seed, longest=4)
    for query in QUERIES:
        assert Shelf(latents).search(query) == as_before(latents, query)
    assert Shelf({}).search("river") == [] and Shelf({}).search(";") == []
    with pytest.raises(ValueError, match="empty"):
        Shelf(latents).find(" ")


def test_what_is_written_is_the_same_json_and_is_read_entry_by_entry(described, tmp_path):
    given = {**described, 5000: [], 5001: [Description("x", "")], 7: [Description("a", ""), Description("b", "ünï")]}
    write_shelf(tmp_path / NAME, given)
    kept = {str(j): [msgspec.to_builtins(d) for d in found if d.text] for j, found in sorted(given.items())}
    data = {"format": "diascope-descriptions-1", "latents": {j: found for j, found in kept.items() if found}}
    expected = json.dumps(data, ensure_ascii=False, indent=0, sort_keys=True)
    assert (tmp_path / NAME).read_bytes() == expected.encode()
    shelf = Shelf.open(tmp_path)
    assert isinstance(shelf.latents, shelves._Entries) and shelf.latents == {**described, 7: [Description("b", "ünï")]}
    assert shelf.of(7) == [Description("b", "ünï")] and shelf.of(5000) == shelf.of(-1) == shelf.of(10**6) == []
    write_shelf(tmp_path / "again" / NAME, given)
    assert (tmp_path / "again" / DERIVED).read_bytes() == (tmp_path / DERIVED).read_bytes()
    write_shelf(tmp_path / "none" / NAME, {})
    assert (
        json.loads((tmp_path / "none" / NAME).read_text())["latents"] == {} and Shelf.open(tmp_path / "none").search("x") == []
    )


def test_a_derived_file_of_other_descriptions_is_not_used(tmp_path):
    """Whoever writes the JSON alone, such as an older version, is believed."""
    write_shelf(tmp_path / NAME, {1: [Description("a", "river")], 2: [Description("a", "a lake")]})
    text = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(text.replace("river", "tower"))  # as many bytes
    shelf = Shelf.open(tmp_path)
    assert shelf.search("river") == [] and shelf.search("tower") == [1] and shelf.of(1) == [Description("a", "tower")]
    (tmp_path / NAME).write_text(text)
    assert isinstance(Shelf.open(tmp_path).latents, shelves._Entries)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-9])


def without_an_array(path):
    with safe_open(path, "numpy") as file:
        save_file({name: file.get_tensor(name) for name in ("latents", "places")}, path, metadata=file.metadata())


def of_another_length(path):
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        save_file({**arrays, "places": arrays["places"][:0]}, path, metadata=file.metadata())


@pytest.mark.parametrize("damage", [truncated, without_an_array, of_another_length, lambda path: path.write_bytes(b"")])
def test_a_damaged_derived_file_is_named(tmp_path, damage):
    write_shelf(tmp_path / NAME, {1: [Description("a", "river")]})
    damage(tmp_path / DERIVED)
    with pytest.raises(ValueError, match=r"descriptions\.safetensors.*delete it"):
        Shelf.open(tmp_path)
    (tmp_path / DERIVED).unlink()
    assert Shelf.open(tmp_path).search("river") == [1]


def test_without_full_text_search_only_the_json_is_written(tmp_path, monkeypatch):
    def lacking(name):
        raise NoSearch("no full-text search")

    write_shelf(tmp_path / NAME, {1: [Description("a", "river")]})
    with monkeypatch.context() as m:
        m.setattr("diascope.latents.describe.words.table", lacking)
        write_shelf(tmp_path / NAME, {1: [Description("a", "tower")]})
        assert Shelf.open(tmp_path).of(1) == [Description("a", "tower")]
        with pytest.raises(ValueError, match="no full-text search"):
            Shelf.open(tmp_path).search("tower")
    assert Shelf.open(tmp_path).search("tower") == [1] and Shelf.open(tmp_path).search("river") == []


def index_of(folder, latents, descriptions):
    """A sealed index with one source of `latents` latents."""
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "tokens.npy", np.zeros((1, 4), np.int32))
    (folder / "corpus" / "strings.json").write_text("{}")
    g = np.random.default_rng(0)
    columns = {"density": g.integers(0, 6, latents).astype(np.float32), "level": g.integers(0, 3, latents).astype(np.int32)}
    columns["top_logit"] = np.where(g.random(latents) < 0.1, np.nan, g.normal(size=latents)).astype(np.float32)
    write_source(folder / "sources" / "0", {"name": "sae"}, columns, [b"\x90"] * latents, descriptions)
    (folder / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": "toy"}))
    seal(folder)
    return folder


def test_a_sealed_index_serves_what_was_put_in_last(tmp_path, described):
    folder = index_of(tmp_path / "i", 300, described)
    before = Index(folder).sources["sae"]
    assert before.search("river") == [j for j in as_before(described, "river") if j < 300]
    new = {3: [Description("judge", "riverside glasshouse")], 5: [Description("judge", "glasshouse")]}
    shelve(folder, 0, new)
    source = Index(folder).sources["sae"]  # the seal holds, of both files
    merged = {**described, **{j: [*found, *described.get(j, [])] for j, found in new.items()}}
    assert sorted(source.search("glasshouse")) == [3, 5] and before.search("glasshouse") == []
    assert source.search("river") == [j for j in as_before(merged, "river") if j < 300]
    assert all(source.descriptions(j) == merged.get(j, []) for j in range(300))
    assert isinstance(source._shelf.latents, shelves._Entries)


def test_killed_between_the_two_files_the_old_words_are_not_served(tmp_path, described, monkeypatch):
    folder = index_of(tmp_path / "i", 300, described)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(shelves, "_write_derived", killed)
        shelve(folder, 0, {3: [Description("judge", "glasshouse")]})
    assert Index(folder).sources["sae"].search("glasshouse") == [3]


def test_pages_of_a_table_are_stretches_of_the_whole_order(tmp_path):
    source = Index(index_of(tmp_path / "i", 2000, None)).sources["sae"]
    for sort in ("density", "level", "top_logit", "latent"):
        for descending in (False, True):
            for alive in (False, True):
                chosen = np.flatnonzero(source.columns["density"] > 0) if alive else np.arange(2000)
                key = chosen if sort == "latent" else source.columns[sort][chosen]
                expected = chosen[np.argsort(-key if descending else key, kind="stable")]
                for offset in (0, 3, 40, len(chosen) // 2, 20, len(chosen) - 5, 5000):
                    total, page = source.browse(sort=sort, descending=descending, offset=offset, limit=50, alive=alive)
                    assert total == len(chosen) and page.tolist() == expected[offset : offset + 50].tolist()
    assert len(source._orders) == 8


@pytest.mark.parametrize("count", [0, 1, 5, 49, 50, 99, 100, 200])
@pytest.mark.parametrize("kind", ["ties", "floats", "half nan", "integers"])
def test_the_smallest_are_how_a_stable_sort_begins(count, kind):
    g = np.random.default_rng(0)
    keys = {
        "ties": g.integers(0, 3, 100).astype(np.float64),
        "floats": g.normal(size=100),
        "half nan": np.where(g.random(100) < 0.6, np.nan, g.normal(size=100)),
        "integers": g.integers(-5, 5, 100),
    }[kind]
    assert smallest(keys, count).tolist() == np.argsort(keys, kind="stable")[:count].tolist()


def test_an_inverted_index_by_hand():
    assert Terms().of(["b ä", "Running"]) == [(b"a", 0), (b"b", 0), (b"run", 1)]
    words = Words.build({9: "run é runs", 4: "b a"})
    assert words.latents.tolist() == [4, 9] and words.lengths.tolist() == [2, 3]
    assert words.arrays["letters"].tobytes() == b"aberun" and words.arrays["ends"].tolist() == [0, 1, 2, 3, 6]
    assert words.arrays["rows"].tolist() == [0, 0, 1, 1] and words.arrays["times"].tolist() == [1, 1, 1, 2]
