// Where nodes stand: positions from left to right, layers from bottom to top, the latents of one cell side by side, none on another.
// 1. Every cell (layer, column) is a grid; a column is as many marks wide as the room allows, wherever its fullest cell needs it most.
// 2. A layer is as high as its fullest cell then is; a layer without nodes is a thin line.
import type { Circuit } from "./data";

export type Pill = { x: number; y: number; width: number; text: string };
export type Column = { x: number; width: number; position: number | null };
export type Row = { y: number; height: number; layer: number };
export type Layout = {
  x: Float64Array;
  y: Float64Array;
  r: Float64Array;
  columns: Column[];
  rows: Row[];
  pills: Map<number, Pill>;
  width: number;
  height: number;
  slanted: boolean;
  labels: number; // where token texts begin, from the top
};

const LEFT = 40;
const LOW = 400; // pixels: a graph of few layers is spread to this height

export function layoutOf(circuit: Circuit, shown: boolean[], room: number): Layout {
  const visible = circuit.nodes.flatMap((_, i) => (shown[i] ? [i] : []));
  const step = visible.length > 350 ? 11 : 14;
  const targets = visible.filter((i) => circuit.nodes[i]!.kind === "target");
  const others = visible.filter((i) => circuit.nodes[i]!.kind !== "target");
  const places = [...new Set([...circuit.tokens.keys(), ...others.map((i) => circuit.nodes[i]!.position)])]
    .filter((p): p is number => p !== null && p >= (circuit.about.first ?? 0))
    .sort((a, b) => a - b);
  const named: (number | null)[] = others.some((i) => circuit.nodes[i]!.position === null) ? [null, ...places] : places;
  const column = new Map(named.map((p, c) => [p, c]));
  const top = Math.max(circuit.about.layers ?? 0, ...others.map((i) => circuit.nodes[i]!.layer + 1), 1);
  const cells = new Map<string, number[]>();
  const fullest = named.map(() => 1);
  for (const i of others) {
    const n = circuit.nodes[i]!;
    const c = column.get(n.position) ?? 0;
    const cell = cells.get(`${n.layer} ${c}`) ?? [];
    cell.push(i);
    cells.set(`${n.layer} ${c}`, cell);
    fullest[c] = Math.max(fullest[c]!, cell.length);
  }
  const across = widths(fullest, room - LEFT - 10, step, named.length > 30 ? 3 : 8);
  const columns: Column[] = [];
  let x = LEFT;
  for (const [c, position] of named.entries()) {
    columns.push({ x, width: across.width(c), position });
    x += across.width(c);
  }
  const width = Math.max(x + 10, Math.min(room, 320));
  const pills = pillsOf(circuit, targets, width);
  const rows: Row[] = [];
  let y = pills.height + 10;
  const bare = Math.max(top > 30 ? 12 : 17, Math.min(64, LOW / (top + 1)));
  for (let layer = top; layer >= -1; layer--) {
    const lines = Math.max(0, ...named.map((_, c) => Math.ceil((cells.get(`${layer} ${c}`)?.length ?? 0) / across.marks[c]!)));
    if (layer === top && !lines) continue; // only a final bias stands there
    const height = lines ? Math.max(bare, lines * step + 6) : 6;
    rows.push({ y, height, layer });
    y += height;
  }
  const longest = Math.max(0, ...places.map((p) => circuit.text(p).length));
  const slanted = columns.some((c) => c.position !== null && circuit.text(c.position).length * 7 + 4 > c.width);
  const height = y + (slanted ? 14 + Math.min(longest, 14) * 5.6 : 24);
  const out = { x: new Float64Array(circuit.nodes.length), y: new Float64Array(circuit.nodes.length), r: new Float64Array(circuit.nodes.length) };
  for (const row of rows)
    for (const [c, at] of columns.entries()) {
      const cell = cells.get(`${row.layer} ${c}`) ?? [];
      spread(cell, at, row, across.marks[c]!, step, out);
    }
  const most = Math.max(...others.filter((i) => circuit.nodes[i]!.kind !== "token").map((i) => circuit.influence(i)), 1e-12);
  for (const i of others) out.r[i] = 2.4 + (step / 2 - 3.1) * Math.sqrt(Math.min(1, circuit.influence(i) / most));
  for (const [i, pill] of pills.at) {
    out.x[i] = pill.x + pill.width / 2;
    out.y[i] = pill.y + 18;
    out.r[i] = 4;
  }
  return { ...out, columns, rows, pills: pills.at, width, height, slanted, labels: y };
}

// How many marks each column is wide: first what is needed for three lines, then more wherever a cell is still the highest.
function widths(fullest: number[], room: number, step: number, gap: number): { marks: number[]; width: (c: number) => number } {
  const marks = fullest.map((n) => Math.max(1, Math.ceil(n / 4)));
  const used = () => marks.reduce((sum, m) => sum + m * step + gap, 0);
  const lines = (c: number) => Math.ceil(fullest[c]! / marks[c]!);
  while (used() + step <= room) {
    const high = marks.reduce((best, _, c) => (lines(c) > lines(best) ? c : best), 0);
    if (!marks.length || lines(high) === 1) break;
    marks[high]! += 1;
  }
  const spare = Math.min(110, Math.max(0, (room - used()) / Math.max(marks.length, 1)));
  return { marks, width: (c) => marks[c]! * step + gap + spare };
}

function spread(cell: number[], at: Column, row: Row, marks: number, step: number, out: { x: Float64Array; y: Float64Array }): void {
  const lines = Math.ceil(cell.length / marks);
  for (const [k, i] of cell.entries()) {
    const line = Math.floor(k / marks);
    const inLine = line === lines - 1 ? cell.length - line * marks : marks;
    out.x[i] = at.x + at.width / 2 + ((k % marks) - (inLine - 1) / 2) * step;
    out.y[i] = row.y + row.height / 2 + (line - (lines - 1) / 2) * step;
  }
}

// Targets as pills with text, from the right, in as many lines as they need.
function pillsOf(circuit: Circuit, targets: number[], width: number): { at: Map<number, Pill>; height: number } {
  const lines: { i: number; text: string; width: number }[][] = [[]];
  let used = 0;
  for (const i of targets) {
    const name = circuit.targetText(i);
    const text = `${name.length > 18 ? name.slice(0, 17) + "…" : name}${targets.length > 1 ? ` ${percentOf(circuit.nodes[i]!.weight ?? 0)}` : ""}`;
    const own = text.length * 6.9 + 14;
    if (used + own > width - LEFT && used) {
      lines.push([]);
      used = 0;
    }
    lines.at(-1)!.push({ i, text, width: own });
    used += own + 6;
  }
  const at = new Map<number, Pill>();
  for (const [l, line] of lines.entries()) {
    let x = width - 8 - line.reduce((sum, p) => sum + p.width + 6, -6);
    for (const p of line) {
      at.set(p.i, { x, y: 6 + l * 26, width: p.width, text: p.text });
      x += p.width + 6;
    }
  }
  return { at, height: targets.length ? lines.length * 26 + 6 : 6 };
}

export const percentOf = (x: number) => `${(100 * x).toFixed(x >= 0.995 || x === 0 ? 0 : x >= 0.0995 ? 0 : 1)}\u2009%`;
