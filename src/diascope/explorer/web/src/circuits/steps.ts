// The link graph by keyboard: up and down along the strongest edge, left and right along a layer, p pins, Escape lets go.
import type { Layout } from "./layout";
import type { State } from "./state";

export function step(state: State, layout: Layout, key: string): boolean {
  const chosen = state.selected.value;
  if (key === "Escape") {
    state.selected.value = -1;
    return true;
  }
  if (key === "p" && chosen >= 0) {
    state.toggle(chosen);
    return true;
  }
  const next = { ArrowUp: () => along(state, chosen, true), ArrowDown: () => along(state, chosen, false), ArrowLeft: () => beside(state, layout, chosen, -1), ArrowRight: () => beside(state, layout, chosen, 1) }[key];
  if (!next) return false;
  const found = chosen >= 0 && state.shown.value.nodes[chosen] ? next() : first(state);
  if (found >= 0) state.selected.value = found;
  return true;
}

const first = (state: State) => state.circuit.targets()[0] ?? state.shown.value.nodes.indexOf(true);

// The other end of the strongest edge that leaves a node (up) or enters it (down); -1 where there is none.
function along(state: State, i: number, up: boolean): number {
  const { circuit, shown } = state;
  const edge = (up ? circuit.outgoing : circuit.incoming)[i]!.find((e) => shown.value.has[e]);
  return edge === undefined ? -1 : circuit.edges[edge]![up ? 1 : 0];
}

// The next node of the same layer to one side; at the row's end, stay.
function beside(state: State, layout: Layout, i: number, way: number): number {
  const { circuit, shown } = state;
  const [kind, layer] = [circuit.nodes[i]!.kind === "target", circuit.nodes[i]!.layer];
  const row = circuit.nodes.flatMap((n, j) => (shown.value.nodes[j] && (n.kind === "target") === kind && (kind || n.layer === layer) ? [j] : []));
  row.sort((a, b) => layout.x[a]! - layout.x[b]! || layout.y[a]! - layout.y[b]!);
  return row[row.indexOf(i) + way] ?? -1;
}
