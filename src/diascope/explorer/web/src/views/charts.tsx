// Small charts: lines over steps, points with intervals. Axes with round numbers, linear or logarithmic; values under the pointer.
import { useState } from "preact/hooks";
import { short } from "../format";

export type Line = { name: string; colour: number; x: ArrayLike<number>; y: ArrayLike<number | null> };
const W = Math.max(300, Math.min(520, innerWidth - 70)); // so that text is as large on a narrow screen
const H = 230, LEFT = 54, RIGHT = 10, TOP = 8, BOTTOM = 26;
const DASHES = ["", "6 3", "2 3", "9 3 2 3"];

// A colour and a dash: the same colour comes again with another dash, so that no two of 32 look alike.
export const inkOf = (k: number) => ({ stroke: `var(--c${k % 8})`, "stroke-dasharray": DASHES[Math.floor(k / 8) % DASHES.length] });

export type Scale = { to: (v: number) => number; ticks: number[]; low: number; high: number };

export function scaleOf(low: number, high: number, from: number, until: number, log: boolean): Scale {
  if (log) {
    const [a, b] = [Math.log10(low), Math.log10(Math.max(high, low * 1.0001))];
    const each = Math.max(1, Math.ceil((b - a) / 5));
    let ticks: number[] = [];
    for (let e = Math.ceil(a - 1e-9); e <= b + 1e-9; e += each) ticks.push(10 ** e);
    if (ticks.length < 2) ticks = between(low, high); // less than a decade
    return { to: (v) => from + ((Math.log10(v) - a) / (b - a)) * (until - from), ticks, low, high };
  }
  const span = high - low || Math.abs(high) || 1;
  const [a, b] = high === low ? [low - span / 2, high + span / 2] : [low, high];
  return { to: (v) => from + ((v - a) / (b - a)) * (until - from), ticks: between(a, b), low: a, high: b };
}

function between(low: number, high: number): number[] {
  const rough = (high - low) / 4 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * (rough / unit > 5 ? 10 : rough / unit > 2 ? 5 : rough / unit > 1 ? 2 : 1);
  const out = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + 1e-9 * step; t += step) out.push(Number(t.toPrecision(12)));
  return out;
}

const tick = (v: number) => (v === 0 ? "0" : Math.abs(v) >= 1e9 || Math.abs(v) < 1e-3 ? v.toExponential(0) : Math.abs(v) >= 1e6 ? `${v / 1e6} M` : Math.abs(v) >= 1e4 ? `${v / 1e3} k` : String(Number(v.toPrecision(4))));

// At most two points a pixel: the least and the greatest of each stretch, in order.
function path(line: Line, x: Scale, y: Scale, usable: (i: number) => boolean): string {
  const n = line.x.length;
  const stretch = Math.max(1, Math.floor(n / (W * 2)));
  const out: string[] = [];
  let drawn = false;
  for (let first = 0; first < n; first += stretch) {
    let least = -1, most = -1;
    for (let i = first; i < Math.min(n, first + stretch); i++) {
      if (!usable(i)) continue;
      if (least < 0 || line.y[i]! < line.y[least]!) least = i;
      if (most < 0 || line.y[i]! > line.y[most]!) most = i;
    }
    if (least < 0) {
      drawn = false; // a gap stays a gap
      continue;
    }
    for (const i of least === most ? [least] : [Math.min(least, most), Math.max(least, most)]) {
      out.push(`${drawn ? "L" : "M"}${x.to(line.x[i]!).toFixed(1)} ${y.to(line.y[i]!).toFixed(1)}`);
      drawn = true;
    }
  }
  return out.join("");
}

export function Frame({ x, y, across, children, label }: { x: Scale; y: Scale; across: string; children: any; label: string }) {
  return (
    <svg class="chart" viewBox={`0 0 ${W} ${H}`} role="img" aria-label={label}>
      {y.ticks.map((t) => <><line x1={LEFT} x2={W - RIGHT} y1={y.to(t)} y2={y.to(t)} /><text x={LEFT - 6} y={y.to(t) + 3.5} text-anchor="end">{tick(t)}</text></>)}
      {x.ticks.map((t) => <text x={x.to(t)} y={H - BOTTOM + 14} text-anchor="middle">{tick(t)}</text>)}
      <text x={W - RIGHT} y={H - 1} text-anchor="end">{across}</text>
      {children}
    </svg>
  );
}

export const box = { left: LEFT, right: W - RIGHT, top: TOP, bottom: H - BOTTOM, width: W };

export function Lines({ title, help, lines, across, logX, logY }: { title: string; help?: string; lines: Line[]; across: string; logX: boolean; logY: boolean }) {
  const [at, setAt] = useState<number | null>(null);
  const usable = (l: Line, i: number) => l.y[i] !== null && l.y[i] !== undefined && (!logY || l.y[i]! > 0) && (!logX || l.x[i]! > 0);
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const l of lines)
    for (let i = 0; i < l.x.length; i++) {
      if (!usable(l, i)) continue;
      x0 = Math.min(x0, l.x[i]!);
      x1 = Math.max(x1, l.x[i]!);
      y0 = Math.min(y0, l.y[i]!);
      y1 = Math.max(y1, l.y[i]!);
    }
  const head = <figcaption data-tip={help}>{title}</figcaption>;
  if (x0 > x1) return <figure class="lines">{head}<p class="faint small">{logY ? "nothing above 0 to show on a log scale" : "no values"}</p></figure>;
  const x = scaleOf(x0, x1, LEFT, W - RIGHT, logX);
  const y = scaleOf(y0, y1, H - BOTTOM, TOP, logY);
  const shown = lines.map((l) => ({ line: l, i: at === null ? -1 : nearest(l.x, at) })).filter(({ line, i }) => i >= 0 && usable(line, i));
  const move = (e: PointerEvent) => {
    const area = (e.currentTarget as Element).getBoundingClientRect();
    const place = ((e.clientX - area.left) / area.width) * W;
    const share = Math.min(1, Math.max(0, (place - LEFT) / (W - RIGHT - LEFT)));
    setAt(logX ? 10 ** (Math.log10(x.low) + share * (Math.log10(x.high) - Math.log10(x.low))) : x.low + share * (x.high - x.low));
  };
  const key = (e: KeyboardEvent) => {
    const longest = lines.reduce((a, b) => (b.x.length > a.x.length ? b : a));
    const now = at === null ? longest.x.length - 1 : nearest(longest.x, at);
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: longest.x.length - 1 }[e.key];
    if (to === undefined || to < 0 || to >= longest.x.length) return;
    e.preventDefault();
    setAt(longest.x[to]!);
  };
  return (
    <figure class="lines" tabIndex={0} onPointerMove={move} onPointerLeave={() => setAt(null)} onKeyDown={key} onBlur={() => setAt(null)} aria-label={`${title}: arrows read values`}>
      {head}
      <Frame x={x} y={y} across={across} label={`${title} of ${lines.length} member${lines.length === 1 ? "" : "s"}, from ${short(y0)} to ${short(y1)}`}>
        {lines.map((l) => <path d={path(l, x, y, (i) => usable(l, i))} fill="none" stroke-width="1.7" stroke-linejoin="round" {...inkOf(l.colour)} />)}
        {shown[0] && <line class="cross" x1={x.to(shown[0].line.x[shown[0].i]!)} x2={x.to(shown[0].line.x[shown[0].i]!)} y1={TOP} y2={H - BOTTOM} />}
        {shown.map(({ line, i }) => <circle cx={x.to(line.x[i]!)} cy={y.to(line.y[i]!)} r="3.2" fill={`var(--c${line.colour % 8})`} />)}
      </Frame>
      <p class="read faint small" aria-live="polite">{shown.length > 0 && shown[0] ? `${across} ${short(shown[0].line.x[shown[0].i])}: ${shown.slice(0, 6).map(({ line, i }) => `${line.name} ${short(line.y[i])}`).join(", ")}${shown.length > 6 ? ", …" : ""}` : " "}</p>
    </figure>
  );
}

function nearest(xs: ArrayLike<number>, x: number): number {
  let [low, high] = [0, xs.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle]! < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && Math.abs(xs[low - 1]! - x) < Math.abs(xs[low]! - x) ? low - 1 : low;
}
