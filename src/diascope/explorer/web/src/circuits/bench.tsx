// A graph, and a way to put another in its place: a file chosen or dropped anywhere on the page, which is read here and sent nowhere.
import { useEffect, useState } from "preact/hooks";
import { checked, type View } from "./data";
import { CircuitPage } from "./page";
import { fromViewer, isViewer } from "./viewer";

export type Given = { view: View | null; live: boolean };

export function read(text: string): View {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("This file is no JSON.");
  }
  return checked(isViewer(data) ? fromViewer(data) : data);
}

export function Bench({ view, live }: Given) {
  const [opened, setOpened] = useState<{ view: View; name: string } | null>(null);
  const [error, setError] = useState("");
  const [over, setOver] = useState(false);
  useEffect(() => setOpened(null), [view]);
  const open = async (file: File | undefined) => {
    if (!file) return;
    try {
      setOpened({ view: read(await file.text()), name: file.name });
      setError("");
    } catch (e) {
      setError(`${file.name}: ${(e as Error).message}`);
    }
  };
  useEffect(() => {
    const drag = (e: DragEvent) => {
      if (!e.dataTransfer?.types.includes("Files")) return;
      e.preventDefault();
      setOver(true);
    };
    const leave = (e: DragEvent) => e.relatedTarget === null && setOver(false);
    const drop = (e: DragEvent) => {
      if (!e.dataTransfer?.types.includes("Files")) return;
      e.preventDefault();
      setOver(false);
      void open(e.dataTransfer.files[0]);
    };
    const all: [string, (e: any) => unknown][] = [["dragover", drag], ["dragleave", leave], ["drop", drop]];
    all.forEach(([name, f]) => addEventListener(name, f));
    return () => all.forEach(([name, f]) => removeEventListener(name, f));
  }, []);
  const shown = opened?.view ?? view;
  return (
    <div class={over ? "bench over" : "bench"}>
      <p class="opener small">
        {opened && <><b>{opened.name}</b> <button onClick={() => setOpened(null)}>Close it</button></>}
        <label class="button">Open a graph file<input type="file" accept=".json,application/json" onChange={(e) => { void open(e.currentTarget.files?.[0]); e.currentTarget.value = ""; }} /></label>
        <span class="faint">or drop one here: diascope's, or the JSON of Anthropic's viewer, circuit-tracer, Neuronpedia</span>
      </p>
      {error && <p class="notice error" role="alert">{error}</p>}
      {shown && <CircuitPage key={opened?.name ?? ""} view={shown} live={live && !opened} />}
    </div>
  );
}
