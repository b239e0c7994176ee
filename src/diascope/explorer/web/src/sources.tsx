// The first view: every source with its card, the dictionary's numbers beside its controls.
import type { Card, Metric, Source } from "./api";
import { Copy } from "./copy";
import { Load, useAsk } from "./load";
import { sourcesPython } from "./python";
import { short, whole } from "./format";

const COLUMNS: [string, string, string][] = [
  ["l0", "L0", "mean active latents a token"],
  ["fvu", "FVU", "fraction of variance unexplained, about the global mean"],
  ["fvu_standardised", "FVU std.", "the same with every dimension divided by its deviation"],
  ["delta_ce", "ΔCE", "cross-entropy with the output spliced in, minus clean; nats a token"],
  ["recovered", "recovered", "share of the loss that mean ablation costs and this gets back"],
  ["kl", "KL", "KL(clean ‖ spliced), nats a token"],
];
const LABELS: Record<string, string> = {
  dictionary: "this dictionary",
  affine_part: "its affine part alone",
  mean: "mean vector",
  pca: "fixed PCA, top L0 components",
  token_pca: "per-token PCA, L0 coefficients",
  random: "random dictionary",
  ridge: "ridge regression",
};

function Cell({ metric }: { metric: Metric | undefined }) {
  if (metric === undefined) return <td class="num faint">–</td>;
  if (typeof metric === "number") return <td class="num">{short(metric)}</td>;
  const range = metric.low === null || metric.high === null ? "no interval: one document" : `95 % ${short(metric.low)} to ${short(metric.high)}`;
  return (
    <td class="num" data-tip={`${range}; n ${whole(metric.n)}, ${metric.documents} documents`}>
      {short(metric.value)}
    </td>
  );
}

function CardTable({ card }: { card: Card }) {
  const metrics = card.metrics;
  if (!metrics) return <p class="faint">Not evaluated.</p>;
  const rows = Object.keys(LABELS).filter((k) => k in metrics);
  return (
    <div class="scroll">
      <table class="card-table">
        <thead>
          <tr>
            <th scope="col">map</th>
            {COLUMNS.map(([, label, help]) => (
              <th scope="col" class="num" data-tip={help}>{label}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr class={row === "dictionary" ? "own" : ""}>
              <th scope="row">{LABELS[row]}</th>
              {COLUMNS.map(([key]) => <Cell metric={metrics[row]?.[key]} />)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

type Paired = { a: { label: string }; b: { label: string }; why: string };

function Pairs() {
  const { data } = useAsk<Paired[]>("/api/pairs");
  return (
    <>
      {data?.map((p) => (
        <a class="button" data-tip={p.why} href={`#/pairs?${new URLSearchParams({ a: p.a.label, b: p.b.label })}`}>Compare {p.a.label} with {p.b.label}</a>
      ))}
    </>
  );
}

export function Sources() {
  return (
    <Load<Source[]> path="/api/sources">
      {(sources) => (
        <section class="sources">
          <header class="bar acts"><h1>Sources</h1><Pairs /><Copy label="Copy as Python" text={sourcesPython} /></header>
          {sources.length === 0 && <p class="notice">This index has no sources.</p>}
          {sources.map((s) => (
            <article class="panel">
              <header>
                <h2><a href={`#/s/${encodeURIComponent(s.name)}`}>{s.name}</a></h2>
                <span class="acts"><a class="button" href={`#/map/${encodeURIComponent(s.name)}`}>Map</a><a class="button" href={`#/s/${encodeURIComponent(s.name)}`}>Browse latents</a></span>
              </header>
              <p class="facts">
                <span>{s.title.replace("->", "→")}</span>
                <span>{s.config.model}</span>
                <span>{whole(s.alive)} of {whole(s.latents)} latents fired in {whole(s.tokens_swept)} tokens</span>
                {s.config.l0_target && <span>target L0 {s.config.l0_target}</span>}
              </p>
              <CardTable card={s.card} />
              {s.card.facts && (
                <p class="faint small">
                  {whole(Number(s.card.facts.tokens))} tokens of {String(s.card.facts.documents)} documents of {String(s.card.facts.text || "the evaluation text")}; losses on{" "}
                  {whole(Number(s.card.facts.predictions))} predictions. Hover a number for its interval. Excluded: {String(s.card.facts.excluded)}.
                </p>
              )}
            </article>
          ))}
        </section>
      )}
    </Load>
  );
}
