// The explorer's list of graphs, and the place where one is shown; the page's own script is loaded on the first visit.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, type Status } from "../api";
import { Copy } from "../copy";
import { quoted } from "../format";
import { load } from "../later";
import { Load } from "../load";
import { graphsPython } from "../python";

type Listed = { id: string; model?: string; tokens?: string[]; targets?: string[]; probabilities?: number[]; scores?: Record<string, number>; says?: string; problem?: string };

export function Shelf() {
  return (
    <section class="shelf">
      <header class="bar"><h1>Circuits</h1><Copy label="Copy as Python" text={graphsPython} /></header>
      <Load<Listed[]> path="/api/graphs">
        {(graphs) => (
          <>
            {graphs.length === 0 && <p class="notice">There are no graphs yet: `diascope trace` writes them into the workspace's folder graphs.</p>}
            <ul>
              {graphs.map((g) => (
                <li class="panel">
                  <a class="token" href={`#/circuits/${encodeURIComponent(g.id)}`}>{g.tokens ? g.tokens.map(quoted).join("") : g.id}</a>
                  {g.problem && <span class="notice error">{g.problem}</span>}
                  <p class="facts small">
                    <span>{g.id}</span>
                    {g.targets?.[0] !== undefined && <span>→ {quoted(g.targets[0])}</span>}
                    {g.scores?.replacement !== undefined && <span data-tip="share of influence that ends at tokens rather than errors">replacement {g.scores.replacement.toFixed(2)}</span>}
                    {!g.problem && <span>{g.says ?? "not verified"}</span>}
                  </p>
                </li>
              ))}
            </ul>
          </>
        )}
      </Load>
      <Shown path={null} />
    </section>
  );
}

const SHARES = ["0.6", "0.8", "0.9", "0.95"];

export function Graph({ id }: { id: string }) {
  const [share, setShare] = useState("0.8");
  return (
    <section>
      <p class="crumbs"><a href="#/circuits">Circuits</a> <span class="faint">/</span> {id}
        <label class="small">nodes that carry <select value={share} onChange={(e) => setShare(e.currentTarget.value)}>{SHARES.map((s) => <option value={s}>{100 * Number(s)} %</option>)}</select> of the influence</label>
      </p>
      <Shown path={`/api/graphs/${encodeURIComponent(id)}?node_share=${share}`} />
    </section>
  );
}

// One graph, drawn by a script of its own into an element of ours; without a path, an empty place to open a file.
function Shown({ path }: { path: string | null }) {
  const into = useRef<HTMLDivElement>(null);
  const [note, setNote] = useState({ text: "Loading…", error: false });
  useEffect(() => {
    let current = true;
    const element = into.current!;
    const found = path ? Promise.all([ask<any>(path), ask<Status>("/api/status")]) : Promise.resolve([null, null] as const);
    Promise.all([found, load("circuit")]).then(
      ([[view, status]]) => {
        if (!current) return;
        setNote({ text: "", error: false });
        (window as any).circuits.show(element, { view, live: Boolean(status && status.model.state !== "absent") });
      },
      (e: Error) => current && setNote({ text: e.message, error: true }),
    );
    return () => {
      current = false;
    };
  }, [path]);
  useEffect(() => {
    const element = into.current!;
    return () => (window as any).circuits?.hide(element);
  }, []);
  return (
    <>
      {note.text && <p class={note.error ? "notice error" : "notice"} role={note.error ? "alert" : "status"}>{note.text}</p>}
      <div ref={into} />
    </>
  );
}
