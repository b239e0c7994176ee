// Multiply chosen latents by a factor in the model itself, and see what it then says beside what the graph predicted.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask } from "../api";
import { short } from "../format";
import { follow } from "../steer/stream";
import { shownToken } from "./data";
import { signed } from "./detail";
import { percentOf } from "./layout";
import type { State } from "./state";

type Outcome = {
  targets: { name: string; before: number; after: number; measured: number; direct: number; total: number }[];
  before: [string, number][];
  after: [string, number][];
  factor: number;
  mode: string;
  latents: number;
};
const MODES: [string, string][] = [
  ["free", "the model as it is"],
  ["patterns frozen", "attention patterns as they were"],
  ["norms frozen", "patterns and norms as they were"],
];

export function Intervene({ state, chosen }: { state: State; chosen: string[] }) {
  const { circuit } = state;
  const [factor, setFactor] = useState("0");
  const [mode, setMode] = useState("free");
  const [found, setFound] = useState<{ outcome?: Outcome; error?: string; note?: string; cancelled?: boolean }>({});
  const stop = useRef<AbortController | undefined>(undefined);
  const job = useRef("");
  useEffect(() => () => stop.current?.abort(), []); // leaving the page ends it
  const own = state.selected.value >= 0 ? [state.selected.value] : [];
  const nodes = (chosen.length ? chosen.map((k) => circuit.place.get(k)!) : own).filter((i) => circuit.nodes[i]?.kind === "latent");
  const number = Number(factor);
  const run = async (event: Event) => {
    event.preventDefault();
    stop.current?.abort();
    const signal = (stop.current = new AbortController()).signal;
    job.current = "";
    setFound({ note: "Asking for the model…" });
    const latents = nodes.map((i) => [circuit.nodes[i]!.layer, circuit.nodes[i]!.position, circuit.nodes[i]!.index]);
    try {
      await follow(`/api/graphs/${encodeURIComponent(circuit.view.graph!)}/intervene`, { latents, factor: number, mode }, signal, ({ kind, data }) => {
        if (kind === "job") {
          job.current = data.job;
          setFound({ note: data.ahead ? `Waiting for ${data.ahead} other request${data.ahead === 1 ? "" : "s"}…` : "Beginning…" });
        } else if (kind === "stage") setFound({ note: `${data.what[0].toUpperCase()}${data.what.slice(1)}…` });
        else if (kind === "done") setFound({ outcome: data });
        else if (kind === "cancelled") setFound({ cancelled: true });
        else if (kind === "failed") setFound({ error: `${data.error[0]?.toUpperCase() ?? ""}${data.error.slice(1)}.` });
      });
    } catch (e) {
      if (!signal.aborted) setFound({ error: (e as Error).message });
    }
  };
  const cancel = () => void ask(`/api/jobs/${encodeURIComponent(job.current)}/cancel`, {}).catch(() => {}); // its stream ends by itself
  const busy = found.note !== undefined;
  return (
    <section class="panel intervene">
      <h2>Intervene</h2>
      <form onSubmit={run}>
        <p>{nodes.length === 0 ? "Choose a latent in the graph, or tick pinned latents or a supernode." : nodes.length === 1 ? circuit.nodes[nodes[0]!]!.name : `${nodes.length} latents`}</p>
        <div class="row">
          <label>times <input type="number" step="any" aria-label="factor" value={factor} onInput={(e) => setFactor(e.currentTarget.value)} /></label>
          {["0", "2", "-1"].map((f) => <button type="button" aria-pressed={factor === f} onClick={() => setFactor(f)}>{f === "0" ? "ablate" : f === "2" ? "double" : "reverse"}</button>)}
          <select aria-label="what is frozen" value={mode} onChange={(e) => setMode(e.currentTarget.value)}>{MODES.map(([m, help]) => <option value={m}>{help}</option>)}</select>
          <button class="go" disabled={!nodes.length || factor.trim() === "" || !Number.isFinite(number) || busy}>{busy ? "Running…" : "Run"}</button>
          {busy && <button type="button" onClick={cancel}>Cancel</button>}
        </div>
      </form>
      {found.note && <p class="faint small" role="status">{found.note}</p>}
      {found.cancelled && <p class="faint small" role="status">Cancelled.</p>}
      {found.error && <p class="notice error" role="alert">{found.error}</p>}
      {found.outcome && <Result outcome={found.outcome} />}
    </section>
  );
}

function Result({ outcome }: { outcome: Outcome }) {
  const list = (title: string, pairs: [string, number][]) => (
    <div>
      <h3>{title}</h3>
      <ol class="logits">{pairs.map(([t, p]) => <li style={{ "--w": `${100 * p}%` }}><span class="token">{shownToken(t)}</span><span class="num">{percentOf(p)}</span></li>)}</ol>
    </div>
  );
  return (
    <div class="outcome" role="status">
      <p class="faint small">{outcome.latents} latent{outcome.latents === 1 ? "" : "s"} times {short(outcome.factor)}, {MODES.find(([m]) => m === outcome.mode)?.[1]}</p>
      <div class="pair">{list("Before", outcome.before)}{list("After", outcome.after)}</div>
      <div class="scroll">
        <table>
          <thead><tr><th scope="col">target</th><th scope="col" class="num">probability</th><th scope="col" class="num" data-tip="change of the logit, the mean of all taken off">measured</th><th scope="col" class="num" data-tip="by all paths of the graph">predicted</th><th scope="col" class="num" data-tip="by direct edges alone">direct</th></tr></thead>
          <tbody>
            {outcome.targets.map((t) => (
              <tr class={Math.sign(t.measured) === Math.sign(t.total) ? "" : "wrong"}>
                <td class="token">{shownToken(t.name)}</td><td class="num">{percentOf(t.before)} → {percentOf(t.after)}</td>
                <td class="num"><b>{signed(t.measured)}</b></td><td class="num">{signed(t.total)}</td><td class="num faint">{signed(t.direct)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}
