// Pinned nodes and supernodes as boxes, and the sums of the edges between them.
import type { Circuit } from "./data";
import type { Group, State } from "./state";

export type Box = { id: string; title: string; nodes: number[]; group?: Group; x: number; y: number };
export type Sum = { from: number; to: number; weight: number; share: number }; // share: signed, of what enters the box `to`

export const WIDTH = 150;
export const HEIGHT = 40;
const RISE = 60; // between rows

export function boxesOf(state: State): Box[] {
  const { circuit } = state;
  const place = (k: string) => circuit.place.get(k)!;
  const grouped = new Set(state.groups.value.flatMap((g) => g.keys));
  const groups = state.groups.value.map((g, i) => ({ id: `group ${i} ${g.name}`, title: g.name, nodes: g.keys.map(place), group: g, x: 0, y: 0 }));
  const single = state.pins.value.filter((k) => !grouped.has(k)).map((k) => ({ id: k, title: circuit.title(place(k)), nodes: [place(k)], x: 0, y: 0 }));
  return [...groups, ...single];
}

// From box to box: the sum of the edges, and what share of the inputs of `to` that is, its members weighed by influence.
export function sumsOf(circuit: Circuit, boxes: Box[]): Sum[] {
  const box = new Map(boxes.flatMap((b, i) => b.nodes.map((n) => [n, i] as const)));
  const whole = boxes.map((b) => b.nodes.reduce((sum, n) => sum + Math.max(circuit.influence(n), 1e-12), 0));
  const found = new Map<string, Sum>();
  for (const [s, t, weight, share] of circuit.edges) {
    const [from, to] = [box.get(s), box.get(t)];
    if (from === undefined || to === undefined || from === to) continue;
    const sum = found.get(`${from} ${to}`) ?? { from, to, weight: 0, share: 0 };
    sum.weight += weight;
    sum.share += (Math.sign(weight) * share * Math.max(circuit.influence(t), 1e-12)) / whole[to]!;
    found.set(`${from} ${to}`, sum);
  }
  return [...found.values()].sort((a, b) => Math.abs(a.share) - Math.abs(b.share));
}

// Rows from the tokens up to the targets: a box stands above those that much of what enters it comes from, else beside those of like layers.
export function arrange(circuit: Circuit, boxes: Box[], sums: Sum[], room: number): { width: number; height: number } {
  const across = Math.max(1, Math.floor((room + 14) / (WIDTH + 14)));
  const mean = (b: Box, of: (n: number) => number) => b.nodes.reduce((sum, n) => sum + of(n), 0) / b.nodes.length;
  const layer = (b: Box) => mean(b, (n) => (circuit.nodes[n]!.kind === "target" ? 1e6 : circuit.nodes[n]!.layer));
  const position = (b: Box) => mean(b, (n) => circuit.nodes[n]!.position ?? -1);
  const span = Math.max(2, (circuit.about.layers ?? 12) / 8);
  const rows: Box[][] = [];
  for (const b of [...boxes].sort((a, c) => layer(a) - layer(c))) {
    const row = rows.at(-1);
    const fed = row && sums.some((s) => Math.abs(s.share) >= 0.1 && boxes[s.to] === b && row.includes(boxes[s.from]!));
    const apart = fed || (row && (layer(b) - layer(row[0]!) > span || (layer(row[0]!) < 0 && layer(b) >= 0)));
    if (!row || row.length >= across || apart) rows.push([b]);
    else row.push(b);
  }
  const width = Math.max(WIDTH, Math.min(room, Math.max(...rows.map((r) => r.length), 1) * (WIDTH + 60)));
  for (const [r, row] of rows.entries()) {
    row.sort((a, b) => position(a) - position(b));
    const step = width / row.length;
    for (const [k, b] of row.entries()) {
      b.x = step * (k + 0.5) - WIDTH / 2;
      b.y = (rows.length - 1 - r) * (HEIGHT + RISE) + 4;
    }
  }
  return { width, height: rows.length * (HEIGHT + RISE) - RISE + 10 };
}
