// What was pinned, alone: boxes of nodes and supernodes with the summed edges between them.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { arrange, HEIGHT, WIDTH, boxesOf, sumsOf } from "./boxes";
import { signed } from "./detail";
import { percentOf } from "./layout";
import type { State } from "./state";

export function Subgraph({ state }: { state: State }) {
  const frame = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(600);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([e]) => setRoom(Math.floor(e!.contentRect.width)));
    watch.observe(frame.current!);
    return () => watch.disconnect();
  }, []);
  const { circuit } = state;
  const boxes = boxesOf(state);
  const sums = sumsOf(circuit, boxes);
  const { width, height } = arrange(circuit, boxes, sums, room);
  return (
    <div class="subgraph scroll" ref={frame}>
      <svg style={{ width: `${width}px`, height: `${Math.max(height, 10)}px` }} role="img" aria-label={`${boxes.length} pinned nodes and supernodes, ${sums.length} summed edges`}>
        {sums.map(({ from, to, weight, share }) => {
          const [a, b] = [boxes[from]!, boxes[to]!];
          const up = a.y > b.y;
          const [x0, y0] = [a.x + WIDTH / 2, up ? a.y : a.y + HEIGHT];
          const [x1, y1] = [b.x + WIDTH / 2, up ? b.y + HEIGHT : b.y];
          const bend = a.y === b.y ? 34 : (y0 - y1) * 0.45;
          const d = a.y === b.y ? `M${x0} ${a.y + HEIGHT}C${x0} ${a.y + HEIGHT + bend} ${x1} ${a.y + HEIGHT + bend} ${x1} ${a.y + HEIGHT}` : `M${x0} ${y0}C${x0} ${y0 - bend} ${x1} ${y1 + bend} ${x1} ${y1}`;
          return <path class={share > 0 ? "sum plus" : "sum minus"} d={d} style={{ "stroke-width": 0.8 + 7 * Math.sqrt(Math.min(1, Math.abs(share))), opacity: 0.35 + 0.6 * Math.min(1, Math.abs(share) * 3) }}
            data-tip={`${a.title} → ${b.title}: summed weight ${signed(weight)}, ${percentOf(Math.abs(share))} of what enters (net, ${share > 0 ? "raises" : "lowers"})`} />;
        })}
        {[...sums].reverse().filter((s, k, all) => Math.abs(s.share) >= 0.1 && all.slice(0, k).filter((t) => t.to === s.to).length < 3).map(({ from, to, share }) => {
          const [a, b] = [boxes[from]!, boxes[to]!];
          if (a.y === b.y) return null;
          const t = 0.66; // of the way: the share is of what enters the box there
          const ease = t * t * (3 - 2 * t);
          const [y0, y1] = a.y > b.y ? [a.y, b.y + HEIGHT] : [a.y + HEIGHT, b.y];
          return <text class="amount" x={a.x + WIDTH / 2 + (b.x - a.x) * ease} y={y0 + (y1 - y0) * t + 4} text-anchor="middle">{share > 0 ? "" : "−"}{percentOf(Math.abs(share))}</text>;
        })}
        {boxes.map((b) => {
          const open = b.nodes.includes(state.selected.value);
          return (
            <g key={b.id} class={`box ${b.group ? "several" : ""} ${open ? "chosen" : ""}`} onClick={() => (state.selected.value = b.nodes[0]!)}
              data-tip={b.group ? b.nodes.map((n) => circuit.nodes[n]!.name).join("\n") : `${circuit.nodes[b.nodes[0]!]!.name}`}>
              {b.group && <rect class="shade" x={b.x + 3} y={b.y + 3} width={WIDTH} height={HEIGHT} rx="8" />}
              <rect x={b.x} y={b.y} width={WIDTH} height={HEIGHT} rx="8" />
              <text class="name" x={b.x + 10} y={b.y + 17}>{cut(b.title, 21)}</text>
              <text class="what" x={b.x + 10} y={b.y + 32}>{cut(b.group ? `${b.nodes.length} nodes · ${layers(b.nodes.map((n) => circuit.nodes[n]!.layer))}` : under(state, b.nodes[0]!), 24)}</text>
            </g>
          );
        })}
      </svg>
    </div>
  );
}

const cut = (text: string, most: number) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function layers(all: number[]): string {
  const [low, high] = [Math.min(...all), Math.max(...all)];
  return low === high ? `L${low}` : `L${low}–${high}`;
}

function under({ circuit }: State, i: number): string {
  const n = circuit.nodes[i]!;
  if (n.kind === "target") return "target";
  if (n.kind === "token") return `token ${n.position}`;
  return n.label ? `L${n.layer} · ${n.index} at ${circuit.where(i)}` : `at ${circuit.where(i) || "all"}`;
}
