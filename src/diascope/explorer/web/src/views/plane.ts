// Points of the decoder map: where they are on the screen, which is under the pointer, and their pixels.
// A quarter of a million points are written into an image; each is found again through a grid of cells.

export type Camera = { x: number; y: number; zoom: number }; // the middle, in the map's square of side 1; 1 shows all of it

const CELLS = 256; // a side

export class Plane {
  readonly n: number;
  private readonly start = new Uint32Array(CELLS * CELLS + 1);
  private readonly items: Uint32Array;

  constructor(readonly at: Uint16Array) {
    this.n = at.length >> 1;
    this.items = new Uint32Array(this.n);
    for (let i = 0; i < this.n; i++) this.start[this.cell(i) + 1]!++;
    for (let c = 0; c < CELLS * CELLS; c++) this.start[c + 1]! += this.start[c]!;
    const next = this.start.slice();
    for (let i = 0; i < this.n; i++) this.items[next[this.cell(i)]!++] = i;
  }

  x = (i: number) => this.at[2 * i]! / 65535;
  y = (i: number) => 1 - this.at[2 * i + 1]! / 65535;

  private cell(i: number): number {
    return (this.at[2 * i + 1]! >> 8) * CELLS + (this.at[2 * i]! >> 8);
  }

  // The point nearest to a place, at most `far` from it, among those that are shown; -1 where there is none.
  nearest(x: number, y: number, far: number, shown: Uint8Array): number {
    const side = (v: number) => Math.min(CELLS - 1, Math.max(0, Math.floor(v * CELLS)));
    let best = -1;
    let least = far * far;
    for (let row = side(1 - y - far); row <= side(1 - y + far); row++)
      for (let column = side(x - far); column <= side(x + far); column++) {
        const c = row * CELLS + column;
        for (let k = this.start[c]!; k < this.start[c + 1]!; k++) {
          const i = this.items[k]!;
          const d = (this.x(i) - x) ** 2 + (this.y(i) - y) ** 2;
          if (d <= least && shown[i]) [best, least] = [i, d];
        }
      }
    return best;
  }

  // The next point from `i` in a direction: near, and rather straight ahead; -1 where there is none.
  next(i: number, dx: number, dy: number, shown: Uint8Array): number {
    let best = -1;
    let least = Infinity;
    for (let j = 0; j < this.n; j++) {
      if (!shown[j] || j === i) continue;
      const [x, y] = [this.x(j) - this.x(i), this.y(j) - this.y(i)];
      const along = x * dx + y * dy;
      const aside = Math.abs(x * dy - y * dx);
      if (along <= 1e-9 || aside > along) continue;
      const cost = along + 2 * aside;
      if (cost < least) [best, least] = [j, cost];
    }
    return best;
  }
}

export type View = { camera: Camera; width: number; height: number; scale: number }; // CSS pixels, and device pixels to one

const side = (v: View) => Math.min(v.width, v.height) * v.camera.zoom;
export const toX = (v: View, x: number) => (x - v.camera.x) * side(v) + v.width / 2;
export const toY = (v: View, y: number) => (y - v.camera.y) * side(v) + v.height / 2;
export const fromX = (v: View, px: number) => (px - v.width / 2) / side(v) + v.camera.x;
export const fromY = (v: View, py: number) => (py - v.height / 2) / side(v) + v.camera.y;
export const distance = (v: View, pixels: number) => pixels / side(v);

// Draw points in `order`, later ones on top, with the packed colours `ink`. Returns how many are on the screen.
export function draw(pen: CanvasRenderingContext2D, plane: Plane, view: View, order: Uint32Array, shown: Uint8Array, ink: Uint32Array): number {
  const [w, h] = [pen.canvas.width, pen.canvas.height];
  const image = pen.createImageData(w, h);
  const pixels = new Uint32Array(image.data.buffer);
  const density = Math.sqrt((side(view) ** 2 * view.scale ** 2) / Math.max(plane.n, 1)); // device pixels between points, were they even
  const dot = Math.max(1, Math.min(Math.round(7 * view.scale), Math.round(density * 0.42)));
  const half = dot / 2;
  const k = side(view) * view.scale;
  const [ox, oy] = [(view.width * view.scale) / 2 - view.camera.x * k, (view.height * view.scale) / 2 - view.camera.y * k];
  let count = 0;
  for (let o = 0; o < order.length; o++) {
    const i = order[o]!;
    if (!shown[i]) continue;
    const left = Math.round(plane.x(i) * k + ox - half);
    const top = Math.round(plane.y(i) * k + oy - half);
    if (left < 0 || top < 0 || left + dot > w || top + dot > h) continue;
    count++;
    for (let y = top; y < top + dot; y++) pixels.fill(ink[i]!, y * w + left, y * w + left + dot);
  }
  pen.putImageData(image, 0, 0);
  return count;
}

// Colours of values between the ends of a scale; `stops` are "#rrggbb", from low to high.
export function inks(values: Float32Array, low: number, high: number, log: boolean, stops: string[], none: string): Uint32Array {
  const ramp = Array.from({ length: 256 }, (_, k) => {
    const place = (k / 255) * (stops.length - 1);
    const at = Math.min(stops.length - 2, Math.floor(place));
    return mixed(rgb(stops[at]!), rgb(stops[at + 1]!), place - at);
  });
  const missing = mixed(rgb(none), rgb(none), 0);
  const f = log ? Math.log : (v: number) => v;
  const [a, b] = [f(low), f(high)];
  return Uint32Array.from(values, (v) => {
    if (!Number.isFinite(v) || (log && v <= 0)) return missing;
    return ramp[Math.max(0, Math.min(255, Math.round((255 * (f(v) - a)) / (b - a || 1))))]!;
  });
}

const rgb = (s: string) => [1, 3, 5].map((i) => parseInt(s.trim().slice(i, i + 2), 16));
const mixed = (a: number[], b: number[], t: number) => {
  const [r, g, u] = a.map((v, i) => Math.round(v + (b[i]! - v) * t));
  return ((255 << 24) | (u! << 16) | (g! << 8) | r!) >>> 0; // little-endian RGBA
};

export type Ends = { low: number; high: number; log: boolean };

// Between which values colours run: 1 % of latents lie beyond each end. Logarithmic where these differ thirtyfold.
export function endsOf(values: Float32Array): Ends {
  const found = values.filter((v) => Number.isFinite(v));
  const positive = found.filter((v) => v > 0);
  const few = (v: Float32Array) => (v.length > 20_000 ? v.filter((_, i) => i % Math.ceil(v.length / 20_000) === 0) : v).sort();
  const end = (v: Float32Array, q: number) => v[Math.round(q * (v.length - 1))] ?? 0;
  const [all, above] = [few(found), few(positive)];
  const log = above.length > 0.3 * all.length && (all[0] ?? 0) >= 0 && end(above, 0.99) > 30 * end(above, 0.01);
  const of = log ? above : all;
  return { low: end(of, 0.01), high: Math.max(end(of, 0.99), end(of, 0.01)), log };
}
