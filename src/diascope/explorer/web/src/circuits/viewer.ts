// The attribution-graph JSON of Anthropic's viewer, circuit-tracer and Neuronpedia, in our shape.
// Their layers count the embedding as "E" (or -1) and the logits as one after the last; a feature is often the Cantor pair of layer and index.
import type { Edge, Kind, Node, View } from "./data";

type Theirs = { node_id: string; feature?: number | null; layer: string | number; ctx_idx: number; feature_type: string; clerp?: string; influence?: number | null; activation?: number | null; token_prob?: number; is_target_logit?: boolean };
type File = { metadata: { prompt_tokens?: string[]; scan?: unknown; prompt?: string } & Record<string, unknown>; nodes: Theirs[]; links: { source: string; target: string; weight: number }[]; qParams?: { supernodes?: string[][]; pinnedIds?: string[] } };

export function isViewer(data: unknown): data is File {
  const file = data as File;
  return Boolean(file && typeof file === "object" && Array.isArray(file.nodes) && Array.isArray(file.links));
}

function kindOf(n: Theirs): Kind {
  if (/logit/.test(n.feature_type)) return "target";
  if (/embedding/.test(n.feature_type)) return "token";
  if (/error/.test(n.feature_type)) return "error";
  if (/bias/.test(n.feature_type)) return "bias";
  return "latent";
}

// [layer, index] of `{layer}_{index}_{position}`; NaN where an id is of another form.
function parts(id: string): [number, number] {
  const [layer, index] = id.split("_");
  return [Number(layer), Number(index)];
}

export function fromViewer(file: File): View {
  const kinds = file.nodes.map(kindOf);
  const layers = Math.max(0, ...file.nodes.filter((_, i) => kinds[i] !== "target" && kinds[i] !== "token").map((n) => Number(n.layer) || 0)) + 1;
  const nodes = file.nodes.map((n, i): Node => {
    const kind = kinds[i]!;
    const [, second] = parts(n.node_id);
    const layer = kind === "token" ? -1 : kind === "target" ? layers : Number(n.layer) || 0;
    const weight = kind === "target" ? (n.token_prob ?? 0) : 0;
    const index = kind === "error" || kind === "bias" ? -1 : Number.isFinite(second) ? second : (n.feature ?? i);
    const name = { latent: `L${layer} latent ${index} at ${n.ctx_idx}`, error: `L${layer} error at ${n.ctx_idx}` }[kind as string] ?? (n.clerp || n.node_id);
    return {
      id: i, kind, layer, position: kind === "bias" ? null : n.ctx_idx, index, name, label: kind === "latent" ? (n.clerp ?? "") : "",
      activation: n.activation ?? null, value: null, influence: null, weight, predicted: null, measured: null,
    };
  });
  const place = new Map(file.nodes.map((n, i) => [n.node_id, i]));
  const total = nodes.map(() => 0);
  const found = file.links.flatMap(({ source, target, weight }): Edge[] => {
    const [s, t] = [place.get(source), place.get(target)];
    if (s === undefined || t === undefined || typeof weight !== "number") return [];
    total[t]! += Math.abs(weight);
    return [[s, t, weight, 0]];
  });
  for (const e of found) e[3] = total[e[1]]! ? Math.abs(e[2]) / total[e[1]]! : 0;
  influences(nodes, found);
  const targets = file.nodes.filter((_, i) => kinds[i] === "target");
  return {
    about: { model: String(file.metadata?.scan ?? ""), layers, targets: targets.map((n) => logitText(n)), probabilities: targets.map((n) => n.token_prob ?? 0) },
    tokens: file.metadata?.prompt_tokens ?? tokensOf(nodes),
    nodes,
    edges: found,
    supernodes: (file.qParams?.supernodes ?? []).map((g) => g.slice(1).flatMap((id) => place.get(id) ?? [])),
  };
}

// What a logit is called: circuit-tracer writes `Output " Paris" (p=0.43)`.
const logitText = (n: Theirs) => /"(.*)"/.exec(n.clerp ?? "")?.[1] ?? n.clerp ?? n.node_id;

function tokensOf(nodes: Node[]): string[] {
  const out = Array.from({ length: Math.max(0, ...nodes.map((n) => (n.position ?? -1) + 1)) }, () => "");
  for (const n of nodes) if (n.kind === "token") out[n.position!] = n.name;
  return out;
}

// Their `influence` is cumulative, ours is what passes through a node: computed here from the edges given, from the targets down.
function influences(nodes: Node[], edges: Edge[]): void {
  const rank = (n: Node) => (n.kind === "target" ? Infinity : n.kind === "token" ? -1 : n.layer);
  for (const n of nodes) n.influence = n.weight ?? 0;
  for (const [s, t, , share] of [...edges].sort((a, b) => rank(nodes[b[1]]!) - rank(nodes[a[1]]!))) nodes[s]!.influence! += share * nodes[t]!.influence!;
}
