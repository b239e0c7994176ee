// Finding a latent to steer with: by its number, by source/number, or by words of its description.
import { useEffect, useState } from "preact/hooks";
import { ask, type Found, type Row, type Source } from "../api";
import { quoted } from "../format";

type Hit = { source: string; row: Row };
type State = { hits: Hit[]; said: string; error?: boolean };
const FEW = 8;
const NOTHING: State = { hits: [], said: "" };

async function look(source: string, sources: Source[], words: string): Promise<State> {
  const ref = /^(?:(.+)[/:#])?\s*(\d{1,9})$/.exec(words); // sae/404, or 404 of the chosen source
  const name = ref?.[1] ?? source;
  if (ref && sources.some((s) => s.name === name)) {
    const row = await ask<Row>(`/api/sources/${encodeURIComponent(name)}/latents/${ref[2]}`);
    return { hits: [{ source: name, row }], said: "1 latent" };
  }
  const found = await ask<Found>(`/api/sources/${encodeURIComponent(source)}/search?q=${encodeURIComponent(words)}&limit=${FEW}`);
  const said = found.total ? `${found.total} latent${found.total === 1 ? "" : "s"}${found.total > FEW ? `, the best ${FEW}` : ""}` : `No description has ${words}.`;
  return { hits: found.rows.map((row) => ({ source, row })), said };
}

export function Find({ sources, add, full }: { sources: Source[]; add: (source: string, latent: number) => void; full: boolean }) {
  const [source, setSource] = useState(sources[0]!.name);
  const [words, setWords] = useState("");
  const [state, setState] = useState<State>(NOTHING);
  useEffect(() => {
    const asked = words.trim();
    if (!asked) return setState(NOTHING);
    let current = true;
    const wait = setTimeout(() => {
      look(source, sources, asked).then((s) => current && setState(s), (e: Error) => current && setState({ hits: [], said: e.message, error: true }));
    }, 180);
    return () => {
      current = false;
      clearTimeout(wait);
    };
  }, [source, words]);
  const choose = (hit: Hit) => {
    add(hit.source, hit.row.latent);
    setWords("");
  };
  return (
    <div class="find" role="search">
      <div class="row">
        {sources.length > 1 && <select aria-label="dictionary" value={source} onChange={(e) => setSource(e.currentTarget.value)}>{sources.map((s) => <option>{s.name}</option>)}</select>}
        <input id="find" type="search" maxLength={200} value={words} disabled={full} placeholder={full ? "16 latents are the most" : "Add a latent: words, or a number"} aria-label="add a latent"
          onInput={(e) => setWords(e.currentTarget.value)}
          onKeyDown={(e) => { if (e.key === "Enter") { e.preventDefault(); if (state.hits[0]) choose(state.hits[0]); } if (e.key === "Escape") setWords(""); }} />
      </div>
      {words.trim() && <p class={state.error ? "small notice error" : "small faint"} role={state.error ? "alert" : "status"}>{state.said || "Looking…"}</p>}
      {state.hits.length > 0 && (
        <ul class="hits">
          {state.hits.map((hit) => (
            <li key={`${hit.source}/${hit.row.latent}`}>
              <button type="button" onClick={() => choose(hit)}>
                <b>{hit.source}/{hit.row.latent}</b> <span class="said">{hit.row.description || (hit.row.top_token === undefined ? "no description" : `promotes ${quoted(hit.row.top_token)}`)}</span>
              </button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
