// The canvas of the decoder map: drawing when something changed, moving, zooming, pointing, keys.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { whole } from "../format";
import { distance, draw, fromX, fromY, inks, toX, toY, type Camera, type Ends, type Plane, type View } from "./plane";

const ALL: Camera = { x: 0.5, y: 0.5, zoom: 1 };
const REACH = 14; // pixels within which a latent is under the pointer
const MOST = 400; // zoom

type Given = {
  plane: Plane;
  shown: Uint8Array;
  values: Float32Array;
  ends: Ends;
  rings: number[];
  chosen: number;
  choose: (j: number) => void;
  hover: (j: number) => void;
  open: (j: number) => void;
  source: string;
};

// Changes with the colour scheme, so that the canvas is drawn anew with the other colours.
function useScheme(): boolean {
  const asked = useMemo(() => matchMedia("(prefers-color-scheme: dark)"), []);
  const [dark, setDark] = useState(asked.matches);
  useEffect(() => {
    const heard = () => setDark(asked.matches);
    asked.addEventListener("change", heard);
    return () => asked.removeEventListener("change", heard);
  }, []);
  return dark;
}

export function Canvas({ plane, shown, values, ends, rings, chosen, choose, hover, open, source }: Given) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const [camera, setCamera] = useState(ALL);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [under, setUnder] = useState(-1);
  const dark = useScheme();
  const drag = useRef<{ x: number; y: number; from: Camera; moved: boolean } | null>(null);
  const touches = useRef(new Map<number, { x: number; y: number }>());
  const view: View = { camera, ...size, scale: Math.min(devicePixelRatio || 1, 2) };
  const order = useMemo(() => {
    const all = Uint32Array.from({ length: plane.n }, (_, i) => i);
    const rank = (i: number) => (Number.isFinite(values[i]!) ? values[i]! : -Infinity);
    return all.sort((a, b) => rank(a) - rank(b)); // the highest are on top
  }, [plane, values]);
  const ink = useMemo(() => {
    const style = getComputedStyle(document.documentElement);
    const stops = [0, 1, 2, 3].map((k) => style.getPropertyValue(`--ramp-${k}`));
    return inks(values, ends.low, ends.high, ends.log, stops, style.getPropertyValue("--ramp-none"));
  }, [values, ends, dark]);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry!.contentRect.width);
      setSize({ width, height: Math.max(260, Math.min(Math.round(innerHeight * 0.72), width)) });
    });
    watch.observe(frame.current!);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    if (!size.width) return;
    const next = requestAnimationFrame(() => {
      const pen = canvas.current!.getContext("2d")!;
      const began = performance.now();
      const count = draw(pen, plane, view, order, shown, ink);
      circles(pen, plane, view, rings, chosen, under);
      canvas.current!.dataset.drawn = String(count);
      canvas.current!.dataset.took = (performance.now() - began).toFixed(1);
    });
    return () => cancelAnimationFrame(next);
  }, [plane, camera, size, order, shown, ink, rings, chosen, under]);
  useEffect(() => {
    if (chosen >= 0) setCamera((c) => (inside({ ...view, camera: c }, plane, chosen) ? c : { ...c, x: plane.x(chosen), y: plane.y(chosen) }));
  }, [chosen]);
  const place = (e: MouseEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top] as const;
  };
  const zoom = (by: number, px = size.width / 2, py = size.height / 2) => setCamera((c) => {
    const now = { ...view, camera: c };
    const next = { ...c, zoom: Math.min(MOST, Math.max(0.8, c.zoom * by)) };
    const then = { ...view, camera: next };
    return { ...next, x: c.x + fromX(now, px) - fromX(then, px), y: c.y + fromY(now, py) - fromY(then, py) }; // what is there stays there
  });
  const point = (e: PointerEvent) => {
    const [px, py] = place(e);
    const found = plane.nearest(fromX(view, px), fromY(view, py), distance(view, REACH), shown);
    setUnder(found);
    hover(found);
    return found;
  };
  const down = (e: PointerEvent) => {
    touches.current.set(e.pointerId, { x: e.clientX, y: e.clientY });
    canvas.current!.setPointerCapture(e.pointerId);
    drag.current = { x: e.clientX, y: e.clientY, from: camera, moved: touches.current.size > 1 };
  };
  const move = (e: PointerEvent) => {
    const before = touches.current.get(e.pointerId);
    if (touches.current.size === 2 && before) {
      const other = [...touches.current].find(([id]) => id !== e.pointerId)![1];
      const apart = (p: { x: number; y: number }) => Math.hypot(p.x - other.x, p.y - other.y);
      const now = { x: e.clientX, y: e.clientY };
      const box = canvas.current!.getBoundingClientRect();
      zoom(apart(now) / Math.max(apart(before), 1), (now.x + other.x) / 2 - box.left, (now.y + other.y) / 2 - box.top);
      touches.current.set(e.pointerId, now);
      return;
    }
    const d = drag.current;
    if (!d) return void point(e);
    if (Math.hypot(e.clientX - d.x, e.clientY - d.y) > 4) d.moved = true;
    if (d.moved) setCamera({ ...d.from, x: d.from.x - distance(view, e.clientX - d.x), y: d.from.y - distance(view, e.clientY - d.y) });
  };
  const up = (e: PointerEvent) => {
    const d = drag.current;
    touches.current.delete(e.pointerId);
    drag.current = null;
    if (!d || d.moved || e.type === "pointercancel") return;
    const found = point(e);
    if (found < 0) return;
    if (e.pointerType === "touch" && found !== chosen) choose(found); // a finger cannot hover: the first touch chooses
    else open(found);
  };
  const key = (e: KeyboardEvent) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (way) {
      const next = chosen >= 0 && shown[chosen] ? plane.next(chosen, way[0]!, way[1]!, shown) : plane.nearest(camera.x, camera.y, 2, shown);
      if (next >= 0) {
        choose(next);
        setUnder(-1);
        hover(-1);
      }
    } else if (e.key === "Enter" && chosen >= 0) open(chosen);
    else if (e.key === "l" && chosen >= 0) dispatchEvent(new CustomEvent("diascope-add", { detail: { source, latent: chosen } }));
    else if (e.key === "+" || e.key === "=") zoom(1.5);
    else if (e.key === "-") zoom(1 / 1.5);
    else if (e.key === "0") setCamera(ALL);
    else return;
    e.preventDefault();
  };
  const wheel = (e: WheelEvent) => {
    e.preventDefault();
    zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.002)), ...place(e));
  };
  return (
    <div class="plane-of" ref={frame}>
      <canvas ref={canvas} tabIndex={0} role="application" aria-label={`map of ${whole(plane.n)} latents: arrows go to the next latent, Enter opens it, plus and minus zoom`}
        width={Math.round(size.width * view.scale)} height={Math.round(size.height * view.scale)} style={{ width: `${size.width}px`, height: `${size.height}px` }}
        onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={up} onPointerLeave={() => { setUnder(-1); hover(-1); }} onKeyDown={key} onWheel={wheel} />
      <span class="zooms"><button type="button" aria-label="nearer" onClick={() => zoom(1.5)}>+</button><button type="button" aria-label="further" onClick={() => zoom(1 / 1.5)}>−</button><button type="button" aria-label="all of it" onClick={() => setCamera(ALL)}>⤢</button></span>
    </div>
  );
}

const inside = (view: View, plane: Plane, j: number) => {
  const [x, y] = [toX(view, plane.x(j)), toY(view, plane.y(j))];
  return x >= 0 && y >= 0 && x <= view.width && y <= view.height;
};

function circles(pen: CanvasRenderingContext2D, plane: Plane, view: View, rings: number[], chosen: number, under: number): void {
  const style = getComputedStyle(document.documentElement);
  const ring = (j: number, radius: number, width: number, colour: string) => {
    if (j < 0 || j >= plane.n) return;
    pen.beginPath();
    pen.arc(toX(view, plane.x(j)) * view.scale, toY(view, plane.y(j)) * view.scale, radius * view.scale, 0, 7);
    pen.lineWidth = width * view.scale;
    pen.strokeStyle = colour;
    pen.stroke();
  };
  const [ink, cool] = [style.getPropertyValue("--ink"), style.getPropertyValue("--c1")];
  for (const j of rings) ring(j, 5, 1.6, cool);
  ring(under, 6, 1.6, ink);
  ring(chosen, 8, 2.6, ink);
}
