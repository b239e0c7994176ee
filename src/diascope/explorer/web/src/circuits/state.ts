// What a reader chose, in the address after '?', so that a link restores it: `#/circuits/name?node=l3_5_12&pins=...&nodes=0.8`.
import { computed, effect, signal } from "@preact/signals";
import type { Circuit } from "./data";

export type Group = { name: string; keys: string[] };
export const START = { nodes: 1, edges: 1, density: 0 };

export class State {
  readonly selected = signal(-1);
  readonly hovered = signal(-1);
  readonly pins = signal<string[]>([]); // keys, in the order of pinning; a group's members are pinned too
  readonly groups = signal<Group[]>([]);
  readonly nodeShare = signal(START.nodes);
  readonly edgeShare = signal(START.edges);
  readonly density = signal(START.density); // 0 to 1: how many of the strongest edges are drawn throughout
  readonly shown;
  private readonly stops: (() => void)[];

  constructor(readonly circuit: Circuit) {
    this.shown = computed(() => circuit.shown(this.nodeShare.value, this.edgeShare.value));
    this.read();
    addEventListener("hashchange", this.read);
    this.stops = [effect(() => this.write()), () => removeEventListener("hashchange", this.read)];
  }

  close(): void {
    this.stops.forEach((stop) => stop());
  }

  private readonly read = () => {
    const query = new URLSearchParams(location.hash.split("?")[1] ?? "");
    const known = (keys: string) => keys.split(",").filter((k) => this.circuit.place.has(k));
    const share = (name: string, other: number) => {
      const given = query.get(name);
      return given !== null && Number(given) >= 0 && Number(given) <= 1 ? Number(given) : other;
    };
    this.nodeShare.value = share("nodes", START.nodes);
    this.edgeShare.value = share("edges", START.edges);
    this.density.value = share("density", START.density);
    this.pins.value = [...new Set(known(query.get("pins") ?? ""))];
    const groups = query.getAll("group").map((g) => ({ name: g.slice(0, g.lastIndexOf(":")), keys: known(g.slice(g.lastIndexOf(":") + 1)) }));
    this.groups.value = groups.filter((g) => g.keys.length > 0);
    this.selected.value = this.circuit.place.get(query.get("node") ?? "") ?? (query.has("node") ? -1 : (this.circuit.targets()[0] ?? -1));
  };

  private write(): void {
    const query = new URLSearchParams();
    const chosen = this.selected.value;
    if (chosen !== (this.circuit.targets()[0] ?? -1)) query.set("node", this.circuit.keys[chosen] ?? "none");
    if (this.pins.value.length) query.set("pins", this.pins.value.join(","));
    for (const g of this.groups.value) query.append("group", `${g.name}:${g.keys.join(",")}`);
    if (this.nodeShare.value !== START.nodes) query.set("nodes", String(this.nodeShare.value));
    if (this.edgeShare.value !== START.edges) query.set("edges", String(this.edgeShare.value));
    if (this.density.value !== START.density) query.set("density", String(this.density.value));
    const [path] = location.hash.split("?");
    const text = query.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
    const hash = text ? `${path || "#"}?${text}` : path || "#";
    if (hash !== (location.hash || "#")) history.replaceState(history.state, "", hash);
  }

  toggle(i: number): void {
    const key = this.circuit.keys[i]!;
    if (!this.pins.value.includes(key)) this.pins.value = [...this.pins.value, key];
    else this.unpin([key]);
  }

  pin(keys: string[]): void {
    this.pins.value = [...new Set([...this.pins.value, ...keys])];
  }

  unpin(keys: string[]): void {
    this.pins.value = this.pins.value.filter((k) => !keys.includes(k));
    this.groups.value = this.groups.value.map((g) => ({ ...g, keys: g.keys.filter((k) => !keys.includes(k)) })).filter((g) => g.keys.length);
  }

  // A node is in one group at most: a sum would count it twice.
  group(keys: string[], name: string): void {
    this.pin(keys);
    const others = this.groups.value.map((g) => ({ ...g, keys: g.keys.filter((k) => !keys.includes(k)) })).filter((g) => g.keys.length);
    this.groups.value = [...others, { name, keys }];
  }

  ungroup(group: Group): void {
    this.groups.value = this.groups.value.filter((g) => g !== group);
  }

  rename(group: Group, name: string): void {
    this.groups.value = this.groups.value.map((g) => (g === group ? { ...g, name } : g));
  }

  clear(): void {
    this.pins.value = [];
    this.groups.value = [];
  }
}
