// Full-text search in a static copy: words to terms as SQLite's FTS5 makes them, latents ranked by its BM25.
//
// 1. A text is taken apart where unicode61 does it, letters made small and without diacritics (porter unicode61 remove_diacritics 2).
// 2. A term is a word's stem: M. F. Porter, "An algorithm for suffix stripping", Program 14 (1980), with the two rules that
//    FTS5 has besides, -bli and -logi. Like there, words of less than 3 or more than 64 bytes stay as they are.
// 3. A row has every word if it has a term that begins with it; the rank is BM25 with k1 = 1.2 and b = 0.75, in the order of
//    operations of diascope.latents.describe.words. Words that FTS5 takes apart (snake_case) are looked for one by one here.
"use strict";
var staticWords = (() => {
  const K1 = 1.2, B = 0.75, RAREST = 1e-6;

  // Small letters; of a Latin letter with marks the letter, as FTS5's table has it, and no marks that stand alone.
  function folded(text) {
    let out = "";
    for (const c of text) {
      const parts = [...c.normalize("NFD")];
      out += (/^[a-z]$/i.test(parts[0]) && parts.slice(1).every((p) => /\p{Mn}/u.test(p)) ? parts[0] : c).toLowerCase();
    }
    return out.replace(/[\u0300-\u0331]/g, "");
  }

  // The terms of a text, in their order.
  function terms(text) {
    return (folded(text).match(/[\p{L}\p{N}\p{Co}]+/gu) ?? []).map(stem);
  }

  // Which letters are vowels: y is one after a consonant.
  function vowels(w) {
    const found = [];
    for (let i = 0; i < w.length; i++) found.push("aeiou".includes(w[i]) || (w[i] === "y" && i > 0 && !found[i - 1]));
    return found;
  }
  // How often a vowel is followed by a consonant: Porter's m.
  function measure(w) {
    const v = vowels(w);
    let m = 0;
    for (let i = 1; i < w.length; i++) m += v[i - 1] && !v[i] ? 1 : 0;
    return m;
  }
  const voiced = (w) => vowels(w).some(Boolean);
  function short(w) { // *o: consonant, vowel, consonant that is not w, x or y
    const v = vowels(w), n = w.length;
    return n >= 3 && !v[n - 1] && v[n - 2] && !v[n - 3] && !"wxy".includes(w[n - 1]);
  }

  const STEP2 = { ational: "ate", tional: "tion", enci: "ence", anci: "ance", izer: "ize", logi: "log", bli: "ble", alli: "al", entli: "ent", eli: "e", ousli: "ous", ization: "ize", ation: "ate", ator: "ate", alism: "al", iveness: "ive", fulness: "ful", ousness: "ous", aliti: "al", iviti: "ive", biliti: "ble" };
  const STEP3 = { icate: "ic", ative: "", alize: "al", iciti: "ic", ical: "ic", ful: "", ness: "" };
  const STEP4 = ["al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti", "ous", "ive", "ize"];
  const longest = (w, endings) => endings.filter((e) => w.length > e.length && w.endsWith(e)).sort((a, b) => b.length - a.length)[0];

  function replaced(w, rules) {
    const end = longest(w, Object.keys(rules));
    if (end === undefined) return w;
    const rest = w.slice(0, -end.length);
    return measure(rest) > 0 ? rest + rules[end] : w;
  }

  function step1(w) {
    if ((w.length > 4 && w.endsWith("sses")) || (w.length > 3 && w.endsWith("ies"))) w = w.slice(0, -2);
    else if (w.endsWith("s") && !w.endsWith("ss")) w = w.slice(0, -1);
    if (w.endsWith("eed")) {
      if (measure(w.slice(0, -3)) > 0) w = w.slice(0, -1);
    } else {
      const end = longest(w, ["ed", "ing"]);
      if (end !== undefined && voiced(w.slice(0, -end.length))) w = mended(w.slice(0, -end.length));
    }
    return w.endsWith("y") && voiced(w.slice(0, -1)) ? `${w.slice(0, -1)}i` : w;
  }
  function mended(w) {
    if (/(at|bl|iz)$/.test(w)) return `${w}e`;
    const n = w.length;
    if (n > 1 && w[n - 1] === w[n - 2] && !"aeioulsz".includes(w[n - 1])) return w.slice(0, -1);
    return measure(w) === 1 && short(w) ? `${w}e` : w;
  }
  function step4(w) {
    const end = longest(w, STEP4);
    if (end === undefined) return w;
    const rest = w.slice(0, -end.length);
    return measure(rest) > 1 && (end !== "ion" || /[st]$/.test(rest)) ? rest : w;
  }
  function step5(w) {
    if (w.endsWith("e")) {
      const rest = w.slice(0, -1), m = measure(rest);
      if (m > 1 || (m === 1 && !short(rest))) w = rest;
    }
    return w.endsWith("ll") && measure(w.slice(0, -1)) > 1 ? w.slice(0, -1) : w;
  }

  // The stem of a folded word. A letter of several bytes counts as several consonants, as there.
  function stem(word) {
    const raw = new TextEncoder().encode(word);
    if (raw.length < 3 || raw.length > 64) return word;
    const w = step5(step4(replaced(replaced(step1(String.fromCharCode(...raw)), STEP2), STEP3)));
    return new TextDecoder().decode(Uint8Array.from(w, (c) => c.charCodeAt(0)));
  }

  const hex = (term) => [...new TextEncoder().encode(term).subarray(0, 2)].map((b) => b.toString(16).padStart(2, "0")).join("");

  // Row -> how many terms that begin with `word` it has, of the shards that can hold them.
  async function postings(word, shards, shard) {
    const begin = hex(word), found = new Map();
    const parts = await Promise.all(shards.filter((s) => s.startsWith(begin)).map(shard));
    for (const part of parts) {
      for (const [term, [steps, times]] of Object.entries(part)) {
        if (!term.startsWith(word)) continue;
        let row = 0;
        steps.forEach((step, i) => {
          row += step;
          found.set(row, (found.get(row) ?? 0) + (times === 1 ? 1 : times[i]));
        });
      }
    }
    return found;
  }

  // The rows that have every one of `words`, best match first and equal ones as they stand. `shard` and `lengths` fetch files.
  async function find(words, about, shard, lengths) {
    const by = new Map(await Promise.all([...new Set(words)].map(async (w) => [w, await postings(w, about.shards, shard)])));
    const rarest = [...by.values()].reduce((a, b) => (b.size < a.size ? b : a));
    const rows = [...rarest.keys()].filter((row) => [...by.values()].every((found) => found.has(row))).sort((a, b) => a - b);
    const sizes = await lengths(), mean = about.sum / Math.max(about.texts, 1);
    const weights = words.map((w) => {
      const hits = by.get(w).size, weight = Math.log((about.texts - hits + 0.5) / (hits + 0.5));
      return weight > 0 ? weight : RAREST;
    });
    const score = new Map(rows.map((row) => {
      const against = K1 * (1 - B + (B * sizes[row]) / mean);
      let sum = 0;
      words.forEach((w, i) => {
        const often = by.get(w).get(row);
        sum += weights[i] * ((often * (K1 + 1)) / (often + against));
      });
      return [row, sum];
    }));
    return rows.sort((a, b) => score.get(b) - score.get(a) || a - b);
  }

  return { terms, stem, find };
})();
