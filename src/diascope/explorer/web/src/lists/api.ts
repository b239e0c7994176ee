// Lists as the server keeps them, and how tabs tell each other that one was changed.
import { useEffect, useState } from "preact/hooks";
import { ask, type Row } from "../api";

export type Listed = { id: string; name: string; changed: number; latents: number; has?: boolean };
export type Entry = { source: string; latent: number; note: string; row: Row | null };
export type List = { id: string; name: string; changed: number; model: string; latents: Entry[] };

const CHANNEL = "diascope-lists";

// Change a list, and tell every tab, this one too.
export async function change(id: string, what: string, body: unknown): Promise<void> {
  await ask(`/api/lists/${encodeURIComponent(id)}/${what}`, body);
  tell();
}

export async function make(name: string, latents: { source: string; latent: number; note: string }[] = []): Promise<string> {
  const { id } = await ask<{ id: string }>("/api/lists", { name, latents });
  tell();
  return id;
}

export function tell(): void {
  dispatchEvent(new Event(CHANNEL));
  const channel = new BroadcastChannel(CHANNEL);
  channel.postMessage("");
  channel.close();
}

// What `path` answers, asked again when a list was changed here or in another tab, and when this tab is looked at again.
export function useFresh<T>(path: string): { data?: T; error?: string; again: () => void } {
  const [state, set] = useState<{ path: string; data?: T; error?: string }>({ path });
  const [turn, setTurn] = useState(0);
  const again = () => setTurn((n) => n + 1);
  useEffect(() => {
    let current = true;
    ask<T>(path).then(
      (data) => current && set({ path, data }),
      (e: Error) => current && set((s) => ({ path, data: s.path === path ? s.data : undefined, error: e.message })),
    );
    return () => {
      current = false;
    };
  }, [path, turn]);
  useEffect(() => {
    const channel = new BroadcastChannel(CHANNEL);
    channel.onmessage = again;
    addEventListener(CHANNEL, again);
    addEventListener("focus", again);
    return () => {
      channel.close();
      removeEventListener(CHANNEL, again);
      removeEventListener("focus", again);
    };
  }, []);
  return { ...(state.path === path ? state : {}), again };
}
