// Edges on a canvas: positive ones solid and warm, negative ones dashed and cool, stronger ones wider.
import type { Circuit } from "./data";
import type { Layout } from "./layout";

export type Inks = { plus: string; minus: string };

export function inks(element: Element): Inks {
  const style = getComputedStyle(element);
  return { plus: style.getPropertyValue("--plus").trim(), minus: style.getPropertyValue("--minus").trim() };
}

export function clear(canvas: HTMLCanvasElement, layout: Layout): CanvasRenderingContext2D {
  const scale = Math.min(devicePixelRatio || 1, 2);
  const [w, h] = [Math.round(layout.width * scale), Math.round(layout.height * scale)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext("2d")!;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, layout.width, layout.height);
  return pen;
}

// Draw some edges. They are put into few paths by sign and width: thirty thousand strokes of their own would take a second.
export function drawEdges(pen: CanvasRenderingContext2D, circuit: Circuit, layout: Layout, edges: number[], colours: Inks, alpha: number): void {
  const paths = new Map<string, { path: Path2D; width: number; positive: boolean }>();
  for (const e of edges) {
    const [s, t, weight, share] = circuit.edges[e]!;
    const width = 0.5 + 0.25 * Math.round(14 * Math.sqrt(Math.min(1, share)));
    const key = `${weight > 0} ${width}`;
    const found = paths.get(key) ?? { path: new Path2D(), width, positive: weight > 0 };
    paths.set(key, found);
    trace(found.path, layout, s, t);
  }
  pen.globalAlpha = alpha;
  for (const { path, width, positive } of [...paths.values()].sort((a, b) => a.width - b.width)) {
    pen.strokeStyle = positive ? colours.plus : colours.minus;
    pen.lineWidth = width;
    pen.setLineDash(positive ? [] : [4, 3]);
    pen.stroke(path);
  }
  pen.globalAlpha = 1;
  pen.setLineDash([]);
}

function trace(path: Path2D, layout: Layout, s: number, t: number): void {
  const [x0, y0, x1, y1] = [layout.x[s]!, layout.y[s]!, layout.x[t]!, layout.y[t]!];
  const bend = (y0 - y1) * 0.35;
  path.moveTo(x0, y0);
  path.bezierCurveTo(x0, y0 - bend, x1, y1 + bend, x1, y1);
}
