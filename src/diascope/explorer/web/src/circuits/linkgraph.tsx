// The link graph: tokens from left to right, layers from bottom to top. Edges are drawn for the node under the pointer and the
// chosen one; the density slider adds the strongest of all. Marks are SVG, edges two canvases: what stays, and what follows the pointer.
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { useSignalEffect } from "@preact/signals";
import { short } from "../format";
import { clear, drawEdges, inks } from "./draw";
import { type Layout, layoutOf, percentOf } from "./layout";
import { shape } from "./marks";
import { step } from "./steps";
import type { State } from "./state";

const REACH = 11; // pixels from a mark's middle at which the pointer finds it

function nearest(layout: Layout, shown: boolean[], x: number, y: number): number {
  for (const [i, p] of layout.pills) if (x >= p.x && x <= p.x + p.width && y >= p.y && y <= p.y + 20) return i;
  let [best, distance] = [-1, REACH];
  for (let i = 0; i < shown.length; i++) {
    const d = shown[i] && !layout.pills.has(i) ? Math.hypot(layout.x[i]! - x, layout.y[i]! - y) : Infinity;
    if (d < distance) [best, distance] = [i, d];
  }
  if (best < 0 && y > layout.labels) {
    const c = layout.columns.findIndex((c) => x >= c.x && x < c.x + c.width);
    const row = layout.rows.at(-1);
    if (c >= 0 && row) return nearest(layout, shown, layout.columns[c]!.x + layout.columns[c]!.width / 2, row.y + row.height / 2);
  }
  return best;
}

// Scroll a frame until a place in it can be seen, and no further.
function reveal(frame: HTMLElement, x: number, y: number): void {
  const edge = 40;
  const within = (at: number, from: number, size: number) => (at < from + edge ? at - edge : at > from + size - edge ? at - size + edge : from);
  frame.scrollTo(within(x, frame.scrollLeft, frame.clientWidth), within(y, frame.scrollTop, frame.clientHeight));
}

function useRoom(): [RefObject<HTMLDivElement | null>, number] {
  const box = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(0);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setRoom(Math.floor(entry!.contentRect.width)));
    if (box.current) {
      setRoom(Math.floor(box.current.clientWidth));
      watch.observe(box.current);
    }
    return () => watch.disconnect();
  }, []);
  return [box, room];
}

export function LinkGraph({ state }: { state: State }) {
  const { circuit } = state;
  const [box, room] = useRoom();
  const shown = state.shown.value;
  const layout = useMemo(() => layoutOf(circuit, shown.nodes, Math.max(room, 280)), [circuit, shown.nodes, room]);
  const back = useRef<HTMLCanvasElement>(null);
  const front = useRef<HTMLCanvasElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const marks = useRef<SVGSVGElement>(null);
  const [dark, setDark] = useState(0);
  useEffect(() => {
    const media = matchMedia("(prefers-color-scheme: dark)");
    const again = () => setDark((n) => n + 1); // canvases hold colours: draw again
    media.addEventListener("change", again);
    return () => media.removeEventListener("change", again);
  }, []);
  const paint = () => {
    const shown = state.shown.value;
    const [chosen, under] = [state.selected.value, state.hovered.value];
    const around = [...new Set([under, chosen])].filter((i) => shown.nodes[i]).map((i) => circuit.around(i, shown));
    if (front.current) {
      const [pen, colours] = [clear(front.current, layout), inks(front.current)];
      drawEdges(pen, circuit, layout, around.flatMap((a) => a.weak), colours, 0.13);
      drawEdges(pen, circuit, layout, around.flatMap((a) => a.strong), colours, 0.85);
    }
    dress(marks.current, state, around.slice(0, 1).flatMap((a) => [...a.strong, ...a.weak]));
  };
  const paintAll = () => {
    if (!back.current) return;
    const count = Math.round(state.density.value ** 2 * shown.edges.length);
    drawEdges(clear(back.current, layout), circuit, layout, shown.edges.slice(0, count), inks(back.current), count > 2000 ? 0.25 : 0.4);
  };
  const follow = () => {
    const i = state.selected.value;
    if (box.current && i >= 0 && state.shown.value.nodes[i]) reveal(box.current, layout.x[i]!, layout.y[i]!);
  };
  useSignalEffect(follow);
  useSignalEffect(paint);
  useSignalEffect(paintAll);
  useLayoutEffect(() => {
    paintAll();
    paint();
    follow();
  }, [layout, shown, dark]);

  const at = (event: PointerEvent | MouseEvent): number => {
    const frame = (event.currentTarget as Element).getBoundingClientRect();
    return nearest(layout, shown.nodes, event.clientX - frame.left, event.clientY - frame.top);
  };
  const hover = (event: PointerEvent) => {
    const i = at(event);
    if (i !== state.hovered.value) state.hovered.value = i;
    show(tip.current, state, i, event);
  };
  const leave = () => {
    state.hovered.value = -1;
    show(tip.current, state, -1);
  };
  const press = (event: KeyboardEvent) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && step(state, layout, event.key)) event.preventDefault();
  };
  return (
    <div class="linkgraph" ref={box}>
      <div class="plane" style={{ width: `${layout.width}px`, height: `${layout.height}px` }} tabIndex={0} role="application"
        aria-label="link graph: up and down follow the strongest edge, left and right go along a layer, p pins, Escape lets go"
        onKeyDown={press} onPointerMove={hover} onPointerLeave={leave} onClick={(e) => { state.selected.value = at(e); if (e.shiftKey && state.selected.value >= 0) state.toggle(state.selected.value); }}>
        <svg class="grid" width={layout.width} height={layout.height} aria-hidden="true"><Grid state={state} layout={layout} /></svg>
        <canvas ref={back} style={{ width: `${layout.width}px`, height: `${layout.height}px` }} />
        <canvas ref={front} style={{ width: `${layout.width}px`, height: `${layout.height}px` }} />
        <svg class="marks" ref={marks} width={layout.width} height={layout.height}><Marks state={state} layout={layout} /></svg>
      </div>
      <div class="tip" ref={tip} hidden />
    </div>
  );
}

function Grid({ state: { circuit }, layout }: { state: State; layout: Layout }) {
  const named = layout.rows.filter(({ height, layer }) => layer >= 0 && height > 10);
  return (
    <>
      {layout.rows.map(({ y, height, layer }, k) => <rect class={k % 2 ? "band" : "band odd"} x="0" y={y} width={layout.width} height={height} data-layer={layer} />)}
      {layout.columns.slice(1).map((c) => <line x1={c.x} x2={c.x} y1={layout.rows[0]?.y ?? 0} y2={layout.labels} />)}
      {named.map(({ y, height, layer }) => <text x="6" y={y + height / 2 + 3.5}>L{layer}</text>)}
      {layout.columns.map((c) => {
        const [x, y] = [c.x + c.width / 2, layout.labels + 14];
        if (c.position === null) return <text class="at" x={x} y={y} text-anchor="middle">all</text>;
        const text = circuit.text(c.position);
        const cut = text.length > 13 ? `${text.slice(0, 12)}…` : text;
        return layout.slanted
          ? <text class="at" text-anchor="end" transform={`translate(${x + 3} ${y - 4}) rotate(-48)`}>{cut}</text>
          : <text class="at" x={x} y={y} text-anchor="middle">{cut}</text>;
      })}
    </>
  );
}

function Marks({ state: { circuit, shown }, layout }: { state: State; layout: Layout }) {
  return (
    <>
      {circuit.nodes.map((n, i) => {
        if (!shown.value.nodes[i]) return null;
        const pill = layout.pills.get(i);
        return (
          <g data-key={circuit.keys[i]} data-node={i} class="node" id={`node-${i}`}>
            {pill ? (
              <>
                <rect class="pill" x={pill.x} y={pill.y} width={pill.width} height="20" rx="10" />
                <text x={pill.x + pill.width / 2} y={pill.y + 14} text-anchor="middle">{pill.text}</text>
              </>
            ) : (
              <path class={`mark ${n.kind}`} transform={`translate(${layout.x[i]!.toFixed(1)} ${layout.y[i]!.toFixed(1)})`} d={shape(n.kind, layout.r[i]!)} />
            )}
          </g>
        );
      })}
    </>
  );
}

// Chosen, pinned and connected marks: classes set by hand, since following the pointer must not draw six hundred marks again.
function dress(marks: SVGSVGElement | null, state: State, edges: number[]): void {
  if (!marks) return;
  const { circuit, selected, hovered, pins } = state;
  const tied = new Map<number, boolean>();
  for (const e of edges) {
    const [s, t, weight] = circuit.edges[e]!;
    tied.set(s, weight > 0).set(t, weight > 0);
  }
  const pinned = new Set(pins.value);
  for (const g of marks.children) {
    const i = Number((g as SVGGElement).dataset.node);
    const own = i === selected.value || i === hovered.value;
    g.classList.toggle("chosen", i === selected.value);
    g.classList.toggle("under", i === hovered.value);
    g.classList.toggle("pinned", pinned.has(circuit.keys[i]!));
    g.classList.toggle("dim", tied.size > 0 && !own && !tied.has(i));
  }
}

function show(tip: HTMLDivElement | null, { circuit, shown }: State, i: number, event?: PointerEvent): void {
  if (!tip) return;
  tip.hidden = i < 0 || !shown.value.nodes[i] || event?.pointerType === "touch";
  if (tip.hidden || !event) return;
  const n = circuit.nodes[i]!;
  const facts = [n.name, n.label, n.influence === null ? "" : `influence ${percentOf(n.influence)}`, n.activation === null || n.kind !== "latent" ? "" : `activation ${short(n.activation)}`];
  tip.textContent = facts.filter(Boolean).join("\n");
  const [w, h] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - w - 8))}px`;
  tip.style.top = `${event.clientY > h + 24 ? event.clientY - h - 12 : event.clientY + 18}px`;
}
