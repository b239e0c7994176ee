// The circuits page: header, link graph beside the chosen node, pinned circuit, interventions.
import { useEffect, useMemo, useState } from "preact/hooks";
import { whole } from "../format";
import { Circuit, type Kind, type View } from "./data";
import { Detail } from "./detail";
import { Facts } from "./header";
import { Intervene } from "./intervene";
import { percentOf } from "./layout";
import { LinkGraph } from "./linkgraph";
import { Legend } from "./marks";
import { Pins } from "./pins";
import { State } from "./state";

export function CircuitPage({ view, live }: { view: View; live: boolean }) {
  const circuit = useMemo(() => new Circuit(view), [view]);
  const [state, setState] = useState<State | null>(null);
  useEffect(() => {
    const made = new State(circuit);
    setState(made);
    return () => made.close();
  }, [circuit]);
  const [chosen, choose] = useState<string[]>([]);
  if (!state || state.circuit !== circuit) return null;
  if (!circuit.nodes.length) return <section class="circuit"><Facts circuit={circuit} /><p class="notice">This graph has no nodes: nothing was left after pruning.</p></section>;
  return (
    <section class="circuit">
      <Facts circuit={circuit} />
      <div class="split">
        <div class="panel stage">
          <Sliders state={state} />
          <LinkGraph state={state} />
          <Legend kinds={new Set<Kind>(circuit.nodes.map((n) => n.kind))} />
          <p class="faint small keys"><kbd>↑</kbd> <kbd>↓</kbd> strongest edge <kbd>←</kbd> <kbd>→</kbd> along the layer <kbd>p</kbd> pin <kbd>Esc</kbd> let go</p>
        </div>
        <Detail state={state} />
      </div>
      <Pins state={state} chosen={chosen} choose={choose} />
      {live && <Intervene state={state} chosen={chosen.filter((k) => state.pins.value.includes(k))} />}
    </section>
  );
}

function Sliders({ state }: { state: State }) {
  const { circuit, shown } = state;
  const nodes = shown.value.nodes.filter(Boolean).length;
  const edges = shown.value.edges.length;
  const drawn = Math.round(state.density.value ** 2 * edges);
  const slider = (name: string, help: string, signal: typeof state.density, text: string, least: number) => (
    <label data-tip={help}><span>{name}</span><input type="range" min={least} max="1" step="0.01" value={signal.value} onInput={(e) => (signal.value = Number(e.currentTarget.value))} /><output>{text}</output></label>
  );
  return (
    <div class="sliders">
      {slider("nodes", "nodes that carry this share of the influence given here", state.nodeShare, `${percentOf(state.nodeShare.value)} · ${whole(nodes)} of ${whole(circuit.nodes.length)}`, 0.01)}
      {slider("edges", "edges between them that carry this share", state.edgeShare, `${percentOf(state.edgeShare.value)} · ${whole(edges)}`, 0.01)}
      {slider("drawn", "how many of the strongest edges are drawn throughout; those of the chosen node always are", state.density, whole(drawn), 0)}
    </div>
  );
}
