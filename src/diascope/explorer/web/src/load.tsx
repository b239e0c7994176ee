// Loading, failing and empty states, the same everywhere.
import { useEffect, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { ask } from "./api";

export function useAsk<T>(path: string): { data?: T; error?: string } {
  const [state, set] = useState<{ path: string; data?: T; error?: string }>({ path });
  useEffect(() => {
    let current = true;
    ask<T>(path).then(
      (data) => current && set({ path, data }),
      (e: Error) => current && set({ path, error: e.message }),
    );
    return () => {
      current = false;
    };
  }, [path]);
  return state.path === path ? state : {};
}

export function Load<T>({ path, children }: { path: string; children: (data: T) => ComponentChildren }) {
  const { data, error } = useAsk<T>(path);
  if (error) return <p class="notice error" role="alert">{error}</p>;
  if (data === undefined) return <p class="notice" role="status">Loading…</p>;
  return <>{children(data)}</>;
}
