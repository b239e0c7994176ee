// The chosen node: its facts, and what enters and leaves it, each a step further.
import { useState } from "preact/hooks";
import { short } from "../format";
import { percentOf } from "./layout";
import { Mark } from "./marks";
import type { State } from "./state";

const FEW = 12;

export function Detail({ state }: { state: State }) {
  const { circuit } = state;
  const i = state.selected.value;
  if (i < 0 || !circuit.nodes[i]) return <aside class="panel detail"><p class="faint">Choose a node to see what enters and leaves it.</p></aside>;
  const n = circuit.nodes[i]!;
  const pinned = state.pins.value.includes(circuit.keys[i]!);
  const source = n.kind === "latent" ? circuit.view.links?.[String(n.layer)] : undefined;
  return (
    <aside class="panel detail" aria-live="polite">
      <header>
        <h2><Mark kind={n.kind} /> {circuit.title(i)}</h2>
        <button aria-pressed={pinned} onClick={() => state.toggle(i)}>{pinned ? "Unpin" : "Pin"}</button>
      </header>
      <p class="faint small">{n.name}{!state.shown.value.nodes[i] && " · hidden by the sliders"}</p>
      <dl>
        <Fact name="influence" help="share of the targets' influence that passes through it" value={n.influence === null ? null : percentOf(n.influence)} />
        {n.kind === "target" && <Fact name="share" help="its share among the targets" value={n.weight === null ? null : percentOf(n.weight)} />}
        <Fact name={n.kind === "target" ? "value" : "activation"} help={n.kind === "target" ? "logit, the mean of all taken off" : "how strongly it is active"} value={n.kind === "target" ? n.value && short(n.value) : n.activation && short(n.activation)} />
        <Fact name="predicted" help="what the graph says taking it away does to the first target" value={n.predicted === null ? null : signed(n.predicted)} />
        <Fact name="measured" help="what taking it away did to the first target, the model free" value={n.measured === null ? null : signed(n.measured)} />
      </dl>
      {source && <p><a href={`#/s/${encodeURIComponent(source)}/${n.index}`}>Its page: {source} / {n.index}</a></p>}
      <Ends key={`in ${i}`} state={state} title="Inputs" edges={circuit.incoming[i]!} end={0} none="Its inputs are not in this graph." />
      <Ends key={`out ${i}`} state={state} title="Outputs" edges={circuit.outgoing[i]!} end={1} none="Nothing in this graph depends on it." />
    </aside>
  );
}

const Fact = ({ name, help, value }: { name: string; help: string; value: string | number | null }) =>
  value === null ? null : <div><dt data-tip={help}>{name}</dt><dd class="num">{value}</dd></div>;

export const signed = (x: number) => (x > 0 ? "+" : x < 0 ? "−" : "") + short(Math.abs(x));

function Ends({ state, title, edges, end, none }: { state: State; title: string; edges: number[]; end: 0 | 1; none: string }) {
  const { circuit, shown } = state;
  const [all, setAll] = useState(false);
  const found = edges.filter((e) => shown.value.nodes[circuit.edges[e]![end]]);
  const rows = all ? found : found.slice(0, FEW);
  return (
    <section>
      <h3>{title} <span class="faint">{found.length}</span></h3>
      {found.length === 0 && <p class="faint small">{none}</p>}
      <ol class="ends">
        {rows.map((e) => {
          const [, , weight, share] = circuit.edges[e]!;
          const other = circuit.edges[e]![end];
          return (
            <li key={e}>
              <button class={weight > 0 ? "plus" : "minus"} style={{ "--w": `${Math.min(100, 100 * share)}%` }} data-node={other}
                data-tip={`${circuit.nodes[other]!.name}: weight ${signed(weight)}, ${percentOf(share)} of what enters ${end === 0 ? "this node" : "that node"}`}
                onPointerEnter={() => (state.hovered.value = other)} onPointerLeave={() => (state.hovered.value = -1)} onClick={() => (state.selected.value = other)}>
                <Mark kind={circuit.nodes[other]!.kind} />
                <span class="said">{circuit.title(other)} <span class="faint">{circuit.where(other)}</span></span>
                <span class="num">{signed(weight)}</span>
                <span class="num share">{percentOf(share)}</span>
              </button>
            </li>
          );
        })}
      </ol>
      {found.length > FEW && <button class="more" onClick={() => setAll(!all)}>{all ? "fewer" : `all ${found.length}`}</button>}
    </section>
  );
}
