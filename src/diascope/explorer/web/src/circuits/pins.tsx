// Pinned nodes and supernodes: those found automatically are offered; a reader groups, names and takes apart by hand.
import { useState } from "preact/hooks";
import { Mark } from "./marks";
import { percentOf } from "./layout";
import { asPython } from "./python";
import type { Circuit } from "./data";
import type { State } from "./state";
import { Subgraph } from "./subgraph";

const FEW = 6; // automatic supernodes shown at first

export function Pins({ state, chosen, choose }: { state: State; chosen: string[]; choose: (keys: string[]) => void }) {
  const { circuit } = state;
  const pins = state.pins.value;
  const grouped = new Set(state.groups.value.flatMap((g) => g.keys));
  const tick = (keys: string[], on: boolean) => choose(on ? [...new Set([...chosen, ...keys])] : chosen.filter((k) => !keys.includes(k)));
  const box = (keys: string[], name: string) => <input type="checkbox" aria-label={`choose ${name}`} checked={keys.every((k) => chosen.includes(k))} onChange={(e) => tick(keys, e.currentTarget.checked)} />;
  const picked = chosen.filter((k) => pins.includes(k));
  return (
    <section class="panel pins">
      <header class="bar">
        <h2>Pinned</h2>
        <button onClick={() => state.pin(strongest(circuit, state.shown.value.nodes))} data-tip="the targets' first, the tokens and latents of most influence">Pin the strongest</button>
        <button disabled={picked.length < 2} onClick={() => { state.group(picked, named(circuit, picked)); choose([]); }} data-tip="tick two or more below">Group ticked</button>
        <button disabled={!pins.length} onClick={() => { state.clear(); choose([]); }}>Unpin all</button>
        <Copy text={() => asPython(state)} />
      </header>
      {pins.length === 0 && <p class="faint">Pin nodes (<kbd>p</kbd>, or Shift and a click in the graph) to see the circuit that they make, apart from all else.</p>}
      {pins.length > 0 && <Subgraph state={state} />}
      <ul class="pinlist">
        {state.groups.value.map((g, k) => (
          <li class="several" key={k}>
            {box(g.keys, g.name)}
            <input class="name" aria-label="name of the supernode" value={g.name} onChange={(e) => state.rename(g, e.currentTarget.value.trim() || g.name)} />
            <span class="faint small">{g.keys.length} nodes</span>
            <button onClick={() => state.ungroup(g)}>Ungroup</button>
            <button aria-label={`unpin ${g.name}`} onClick={() => state.unpin(g.keys)}>×</button>
          </li>
        ))}
        {pins.filter((k) => !grouped.has(k)).map((k) => {
          const i = circuit.place.get(k)!;
          return (
            <li key={k}>
              {box([k], circuit.title(i))}
              <button class="plain" onClick={() => (state.selected.value = i)}><Mark kind={circuit.nodes[i]!.kind} />{circuit.title(i)} <span class="faint">{circuit.where(i)}</span></button>
              <button aria-label={`unpin ${circuit.title(i)}`} onClick={() => state.unpin([k])}>×</button>
            </li>
          );
        })}
      </ul>
      <Offered state={state} />
    </section>
  );
}

function Offered({ state }: { state: State }) {
  const { circuit } = state;
  const [all, setAll] = useState(false);
  const groups = circuit.supernodes.map((g) => ({ g, keys: g.map((i) => circuit.keys[i]!), influence: g.reduce((sum, i) => sum + circuit.influence(i), 0) }));
  if (!groups.length) return null;
  return (
    <details class="offered">
      <summary>{groups.length} {groups.length === 1 ? "supernode" : "supernodes"} found automatically <span class="faint small">latents with like inputs and outputs</span></summary>
      <ul>
        {(all ? groups : groups.slice(0, FEW)).map(({ g, keys, influence }) => (
          <li>
            <button disabled={keys.every((k) => state.pins.value.includes(k))} onClick={() => state.group(keys, named(circuit, keys))}>Pin as a group</button>
            <span data-tip={g.map((i) => circuit.nodes[i]!.name).join("\n")}>{named(circuit, keys)} <span class="faint">{g.length} latents · influence {percentOf(influence)}</span></span>
          </li>
        ))}
      </ul>
      {groups.length > FEW && <button class="more" onClick={() => setAll(!all)}>{all ? "fewer" : `all ${groups.length}`}</button>}
    </details>
  );
}

// A first name for a group: its strongest member's label, or where it stands.
function named(circuit: Circuit, keys: string[]): string {
  const nodes = keys.map((k) => circuit.place.get(k)!).sort((a, b) => circuit.influence(b) - circuit.influence(a));
  const label = nodes.map((i) => circuit.nodes[i]!.label).find(Boolean);
  const tokens = [...new Set(nodes.map((i) => circuit.nodes[i]!.position).filter((p) => p !== null))].slice(0, 3).map((p) => circuit.text(p!));
  return label || `${circuit.title(nodes[0]!)} and ${nodes.length - 1} more${tokens.length ? ` on ${tokens.join(" ")}` : ""}`;
}

function strongest(circuit: Circuit, shown: boolean[]): string[] {
  const by = (a: number, b: number) => circuit.influence(b) - circuit.influence(a);
  const of = (kind: string) => circuit.nodes.flatMap((n, i) => (n.kind === kind && shown[i] ? [i] : [])).sort(by);
  return [...of("target").slice(0, 1), ...of("latent").slice(0, 8), ...of("token").slice(0, 4)].map((i) => circuit.keys[i]!);
}

function Copy({ text }: { text: () => string }) {
  const [state, setState] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      setState("copied");
    } catch {
      setState(text()); // from a file, or without the right: show it
    }
    setTimeout(() => setState((s) => (s === "copied" ? "" : s)), 1500);
  };
  return (
    <>
      <button onClick={copy}>{state === "copied" ? "Copied" : "Copy as Python"}</button>
      {state && state !== "copied" && <textarea class="python" aria-label="the circuit as Python" readOnly rows={8} value={state} />}
    </>
  );
}
