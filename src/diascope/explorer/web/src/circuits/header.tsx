// What was asked and how far the graph is to be believed: prompt, targets, scores, closure, and what interventions say of its edges.
import { short, whole } from "../format";
import { Supernode, Swapped } from "./trials";
import type { About, Agreement, Circuit } from "./data";
import { percentOf } from "./layout";

const SCORES: [string, string, string][] = [
  ["replacement", "replacement", "share of influence that ends at tokens rather than at errors"],
  ["completeness", "completeness", "how much of what enters each node, weighed by influence, is no error (nodes without inputs count as explained)"],
  ["completeness_restricted", "restricted", "completeness over nodes that have inputs"],
  ["open", "open", "influence that ends at latents whose inputs were not computed, and at edges too small to keep"],
];

// A graph's own check: free ablations against the total of all paths, of the strongest latents and of others.
export function verdict(about: About): { good: boolean; text: string } | null {
  const free = about.verification?.rows.filter((r) => r.edit === "ablate" && r.mode === "free") ?? [];
  const total = free.filter((r) => r.guess === "total");
  const [first] = total;
  if (!first) return null;
  const told = total.map((r) => {
    const gradient = free.find((g) => g.guess === "activation x gradient" && g.of === r.of);
    const beside = gradient ? `, activation x gradient ${gradient.spearman.toFixed(2)}` : "";
    return `${r.of ? `${r.of === "strongest" ? "The strongest" : "The"} ${r.n}${r.of === "strongest" ? "" : ` ${r.of}`}: ` : ""}Spearman ${r.spearman.toFixed(2)} (95 % ${r.spearman_low.toFixed(2)} to ${r.spearman_high.toFixed(2)}), equal sign ${percentOf(r.sign)}${r.of ? "" : `, n = ${r.n}`}${beside}`;
  });
  const good = first.spearman_low > 0;
  const text = good ? `Edges predict what ablations do${first.spearman < 0.5 ? ", but weakly" : ""}. ${told.join(". ")}.` : `Its edges DO NOT predict what ablations do. ${told.join(". ")}. Read no cause into them.`;
  return { good, text };
}

export function Facts({ circuit }: { circuit: Circuit }) {
  const { about } = circuit;
  const found = verdict(about);
  return (
    <header class="facts-of">
      <p class="prompt" aria-label="prompt">
        {circuit.tokens.map((t, p) => (p >= (about.first ?? 0) || t ? <span data-tip={`position ${p}`}>{t.replace(/\n/g, "⏎").replace(/▁/g, " ")}</span> : null))}
        {circuit.tokens.length > 0 && <span class="arrow" aria-label="then">→</span>}
        {circuit.targets().slice(0, 5).map((i, _, all) => <b data-tip="target, and its share among the targets">{circuit.targetText(i)}{all.length > 1 && <small> {percentOf(circuit.nodes[i]!.weight ?? 0)}</small>}</b>)}
      </p>
      {found && <p class={found.good ? "notice verdict good" : "notice error verdict"} role={found.good ? "status" : "alert"}>{found.text}</p>}
      {!found && circuit.edges.length > 0 && <p class="notice verdict">Nobody has checked these edges by intervention: what they predict may not happen.</p>}
      <dl class="scores">
        {SCORES.map(([key, label, help]) => {
          const value = (about.scores as Record<string, number> | undefined)?.[key];
          return value === undefined ? null : <div><dt data-tip={help}>{label}</dt><dd>{value.toFixed(2)}</dd></div>;
        })}
        {typeof about.closure === "number" && <div><dt data-tip="largest |value less the sum of all edges| over the sum of |edges|: algebra holds, which says nothing of causes">closure</dt><dd>{about.closure.toExponential(0)}</dd></div>}
        {typeof about.all_nodes === "number" && <div><dt data-tip="given here of all that were computed">nodes</dt><dd>{whole(circuit.nodes.length)} <span class="faint">of {whole(about.all_nodes)}</span></dd></div>}
        {typeof about.all_edges === "number" && <div><dt data-tip="given here of all that were computed">edges</dt><dd>{whole(circuit.edges.length)} <span class="faint">of {whole(about.all_edges)}</span></dd></div>}
      </dl>
      {about.verification?.supernode && <Supernode tried={about.verification.supernode} />}
      {about.swaps?.map((swap) => <Swapped swap={swap} />)}
      {about.verification && <Table circuit={circuit} rows={about.verification.rows} />}
    </header>
  );
}

function Table({ circuit, rows }: { circuit: Circuit; rows: Agreement[] }) {
  const guesses = [...new Set(rows.map((r) => r.guess))];
  const named = (r: Agreement) => `${r.of ? `${r.of}: ` : ""}${r.edit}, ${r.mode}`;
  const kinds = [...new Set(rows.map(named))];
  const cell = (kind: string, guess: string) => rows.find((r) => named(r) === kind && r.guess === guess);
  return (
    <details class="check">
      <summary>Predicted against measured, {circuit.about.verification!.latents} latents of {whole(circuit.about.verification!.pool)}</summary>
      <div class="checked">
        <Scatter circuit={circuit} />
        <div class="scroll">
          <table>
            <thead><tr><th scope="col">intervention</th>{guesses.map((g) => <th scope="col" class="num">{g}</th>)}</tr></thead>
            <tbody>
              {kinds.map((k) => (
                <tr>
                  <th scope="row">{k}</th>
                  {guesses.map((g) => {
                    const r = cell(k, g);
                    return r ? <td class="num" data-tip={`95 % ${r.spearman_low.toFixed(2)} to ${r.spearman_high.toFixed(2)}; equal sign ${percentOf(r.sign)} (${percentOf(r.sign_low)} to ${percentOf(r.sign_high)}); n ${r.n}`}>{r.spearman.toFixed(2)} <span class="faint">{percentOf(r.sign)}</span></td> : <td />;
                  })}
                </tr>
              ))}
            </tbody>
          </table>
          <p class="faint small">Spearman's rank correlation, and beside it how often the sign is right (chance 50 %). Hover for intervals.</p>
        </div>
      </div>
    </details>
  );
}

// Predicted (across) against measured (up) effect on the first target, of the nodes here that were tried.
function Scatter({ circuit }: { circuit: Circuit }) {
  const points = circuit.nodes.flatMap((n) => (n.predicted !== null && n.measured !== null ? [[n.predicted, n.measured, n.name] as const] : []));
  if (points.length < 3) return null;
  const far = (k: 0 | 1) => Math.max(...points.map((p) => Math.abs(p[k])), 1e-12);
  const [wide, high] = [far(0), far(1)];
  return (
    <figure class="scatter">
      <svg viewBox="0 0 200 200" role="img" aria-label={`predicted against measured effect of ${points.length} latents`}>
        <line x1="100" x2="100" y1="4" y2="196" /><line x1="4" x2="196" y1="100" y2="100" />
        {points.map(([x, y, name]) => <circle cx={100 + (92 * x) / wide} cy={100 - (92 * y) / high} r="3" data-tip={`${name}: predicted ${short(x)}, measured ${short(y)}`} />)}
      </svg>
      <figcaption class="faint small">predicted → · measured ↑ · {points.length} latents shown here</figcaption>
    </figure>
  );
}
