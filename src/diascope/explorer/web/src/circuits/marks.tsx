// One mark a node: its kind can be told by shape alone.
import type { Kind } from "./data";

export const KINDS: [Kind, string][] = [
  ["latent", "latent"],
  ["error", "error: what no latent accounts for"],
  ["excluded", "MLP at a position without latents"],
  ["bias", "biases of a layer"],
  ["earlier", "tokens before the window"],
  ["token", "token"],
  ["target", "target"],
];

export function shape(kind: Kind, r: number): string {
  const s = r * 0.9;
  switch (kind) {
    case "latent":
      return `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
    case "error":
      return `M0 ${-r * 1.15}L${r * 1.15} 0L0 ${r * 1.15}L${-r * 1.15} 0z`;
    case "bias":
      return `M${-r} 0H${r}M0 ${-r}V${r}`;
    case "earlier":
      return `M${r} ${-r}L${-r} 0L${r} ${r}`;
    case "target":
      return `M${-s} ${s}L0 ${-s}L${s} ${s}z`;
    default:
      return `M${-s} ${-s}H${s}V${s}H${-s}z`;
  }
}

export const Mark = ({ kind, size = 5 }: { kind: Kind; size?: number }) => (
  <svg class="glyph" viewBox="-7 -7 14 14" aria-hidden="true"><path class={`mark ${kind}`} d={shape(kind, size)} /></svg>
);

export function Legend({ kinds }: { kinds: Set<Kind> }) {
  return (
    <ul class="legend" aria-label="what the marks are">
      {KINDS.filter(([k]) => kinds.has(k)).map(([k, help]) => <li data-tip={help}><Mark kind={k} />{k}</li>)}
      <li><svg class="glyph wide" viewBox="0 0 26 14" aria-hidden="true"><path class="plus" d="M1 7H25" /></svg>raises</li>
      <li><svg class="glyph wide" viewBox="0 0 26 14" aria-hidden="true"><path class="minus" d="M1 7H25" /></svg>lowers</li>
    </ul>
  );
}
