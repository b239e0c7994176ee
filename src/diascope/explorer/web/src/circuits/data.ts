// A graph as it comes (diascope.circuits.view), indexed: what enters and leaves a node, what carries most, what the sliders leave.

export type Kind = "token" | "latent" | "error" | "excluded" | "bias" | "earlier" | "target";
export type Node = {
  id: number;
  kind: Kind;
  layer: number;
  position: number | null;
  index: number;
  name: string;
  label: string;
  activation: number | null;
  value: number | null;
  influence: number | null;
  weight: number | null;
  predicted: number | null;
  measured: number | null;
};
export type Edge = [source: number, target: number, weight: number, share: number];
export type Agreement = { of?: string; edit: string; mode: string; guess: string; n: number } & Record<
  "spearman" | "spearman_low" | "spearman_high" | "sign" | "sign_low" | "sign_high",
  number
>;
export type Tried = { says: string; latents?: [number, number, number][]; names?: string[]; effect?: number; predicted?: number; control_95?: number; controls?: number; exceeds?: boolean; passed_over?: number };
export type Swap = {
  tokens: string[];
  nodes: string[];
  latents: number;
  errors: number;
  targets: ({ name: string } & Record<"direct" | "total" | "norms frozen" | "patterns frozen" | "free" | "whole", number>)[];
  before: [string, number][];
  after: [string, number][];
  there: [string, number][];
};
export type About = {
  model?: string;
  layers?: number;
  first?: number;
  targets?: string[];
  probabilities?: number[];
  closure?: number;
  scores?: Partial<Record<"replacement" | "completeness" | "completeness_restricted" | "open", number>>;
  verification?: { latents: number; pool: number; rows: Agreement[]; says?: string; supernode?: Tried };
  swaps?: Swap[];
  node_share?: number;
  edge_share?: number;
  all_nodes?: number;
  all_edges?: number;
} & Record<string, unknown>;
export type View = {
  about: About;
  tokens: string[];
  nodes: Node[];
  edges: Edge[];
  supernodes: number[][];
  graph?: string; // its name on the server
  links?: Record<string, string>; // by layer: the index's source whose latents these are
};

const STRONG = 40; // edges each way that stand out around a chosen node: a target of a real graph has hundreds

const LETTERS: Record<Kind, string> = { token: "t", latent: "l", error: "e", excluded: "x", bias: "b", earlier: "w", target: "g" };

// What a node is called in an address: the same however much of the graph is shown.
export const keyOf = (n: Node) => `${LETTERS[n.kind]}${n.layer}_${n.position ?? ""}_${n.index}`;

export type Shown = { nodes: boolean[]; edges: number[]; has: Uint8Array }; // edges: numbers, the strongest first; has: 1 for each of them

export class Circuit {
  readonly nodes: Node[];
  readonly edges: Edge[]; // ends are places in `nodes`
  readonly tokens: string[];
  readonly about: About;
  readonly supernodes: number[][];
  readonly keys: string[];
  readonly place = new Map<string, number>();
  readonly incoming: number[][];
  readonly outgoing: number[][];
  readonly order: number[];
  private readonly strength: Float64Array;
  private readonly ranked: number[];

  constructor(readonly view: View) {
    const at = new Map(view.nodes.map((n, i) => [n.id, i]));
    this.nodes = view.nodes;
    this.tokens = view.tokens;
    this.about = view.about;
    this.edges = view.edges
      .map(([s, t, w, share]): Edge => [at.get(s) ?? -1, at.get(t) ?? -1, w, share])
      .filter(([s, t]) => s >= 0 && t >= 0);
    this.supernodes = view.supernodes.map((g) => g.map((id) => at.get(id) ?? -1).filter((i) => i >= 0)).filter((g) => g.length > 1);
    this.keys = view.nodes.map((n, i) => {
      const key = keyOf(n);
      const own = this.place.has(key) ? `${key}_${i}` : key;
      this.place.set(own, i);
      return own;
    });
    this.incoming = view.nodes.map(() => []);
    this.outgoing = view.nodes.map(() => []);
    this.strength = Float64Array.from(this.edges, ([, t, , share]) => share * Math.max(this.influence(t), 1e-12));
    this.order = this.edges.map((_, e) => e).sort((a, b) => this.strength[b]! - this.strength[a]!);
    for (const [e, [s, t]] of this.edges.entries()) {
      this.incoming[t]!.push(e);
      this.outgoing[s]!.push(e);
    }
    for (const list of this.incoming) list.sort((a, b) => this.edges[b]![3] - this.edges[a]![3]);
    for (const list of this.outgoing) list.sort((a, b) => this.strength[b]! - this.strength[a]!);
    this.ranked = this.nodes.map((_, i) => i).filter((i) => !always(this.nodes[i]!)).sort((a, b) => this.influence(b) - this.influence(a));
  }

  influence(i: number): number {
    return this.nodes[i]!.influence ?? 0;
  }

  targets(): number[] {
    return this.nodes.flatMap((n, i) => (n.kind === "target" ? [i] : []));
  }

  // Tokens and targets, the nodes that carry `nodeShare` of the others' influence, and between these the edges that carry `edgeShare`.
  shown(nodeShare: number, edgeShare: number): Shown {
    const nodes = this.nodes.map(always);
    for (const i of leading(this.ranked, (i) => this.influence(i), nodeShare)) nodes[i] = true;
    const between = this.order.filter((e) => nodes[this.edges[e]![0]] && nodes[this.edges[e]![1]]);
    const edges = leading(between, (e) => this.strength[e]!, edgeShare);
    const has = new Uint8Array(this.edges.length);
    for (const e of edges) has[e] = 1;
    return { nodes, edges, has };
  }

  // The edges of a node that are shown: those into it and those out of it, the strongest of each first.
  around(i: number, shown: Shown): { strong: number[]; weak: number[] } {
    const [into, out] = [this.incoming[i] ?? [], this.outgoing[i] ?? []].map((list) => list.filter((e) => shown.has[e])) as [number[], number[]];
    return { strong: [...into.slice(0, STRONG), ...out.slice(0, STRONG)], weak: [...into.slice(STRONG), ...out.slice(STRONG)] };
  }

  // A person's name for a node: its label where it has one.
  title(i: number): string {
    const n = this.nodes[i]!;
    if (n.kind === "latent") return n.label || `L${n.layer} · ${n.index}`;
    if (n.kind === "token" || n.kind === "target") return `“${n.kind === "token" ? this.text(n.position ?? 0) : this.targetText(i)}”`;
    return { error: `error L${n.layer}`, excluded: `MLP L${n.layer}`, bias: `biases L${n.layer}`, earlier: `earlier L${n.layer}` }[n.kind];
  }

  text(position: number): string {
    return shownToken(this.tokens[position] ?? "");
  }

  targetText(i: number): string {
    return shownToken(this.about.targets?.[this.targets().indexOf(i)] ?? this.nodes[i]!.name);
  }

  // The token that a node stands at; of a token only its place.
  where(i: number): string {
    const { position: p, kind } = this.nodes[i]!;
    return p === null || kind === "target" ? "" : kind === "token" ? `(${p})` : `${this.text(p)} (${p})`;
  }
}

const always = (n: Node) => n.kind === "token" || n.kind === "target";

// The fewest leaders of a sorted list whose sum reaches `share` of all.
function leading(sorted: number[], weight: (i: number) => number, share: number): number[] {
  if (share >= 1) return sorted;
  const most = share * sorted.reduce((sum, i) => sum + weight(i), 0);
  let sum = 0;
  return sorted.filter((i) => {
    const before = sum;
    sum += weight(i);
    return before < most;
  });
}

// Tokens with what cannot be seen made visible.
export const shownToken = (text: string) =>
  text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/▁/g, " ").replace(/[\u0000-\u001f\u007f]/g, "␦").replace(/^ | $/g, "·");

// Whether a value is a graph of ours; a sentence says what is missing.
export function checked(data: unknown): View {
  const view = data as View;
  const lists = view && typeof view === "object" && [view.tokens, view.nodes, view.edges].every(Array.isArray);
  if (!lists) throw new Error("This is no graph: it has no lists tokens, nodes and edges.");
  if (!view.nodes.every((n) => n && typeof n.id === "number" && n.kind in LETTERS && typeof n.layer === "number" && typeof n.index === "number"))
    throw new Error("This graph has a node without id, kind, layer or index, or of a kind that is not known.");
  if (!view.edges.every((e) => Array.isArray(e) && e.length === 4 && e.every((v) => typeof v === "number")))
    throw new Error("This graph has an edge that is not [source, target, weight, share].");
  if (!view.tokens.every((t) => typeof t === "string") || !view.nodes.every((n) => typeof n.name === "string"))
    throw new Error("This graph has a token or a node's name that is no text.");
  const groups = Array.isArray(view.supernodes) ? view.supernodes.filter(Array.isArray) : [];
  const nodes = view.nodes.map((n) => ({ ...n, label: String(n.label ?? ""), position: typeof n.position === "number" ? n.position : null }));
  return { ...view, nodes, about: view.about ?? {}, supernodes: groups };
}
