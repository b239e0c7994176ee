// Views whose script is loaded when one of them is first visited: they draw into an element of ours.
import { useEffect, useRef, useState } from "preact/hooks";

const loading = new Map<string, Promise<void>>();

// Load /<name>.js and /<name>.css once.
export function load(name: string): Promise<void> {
  const begun = loading.get(name) ?? new Promise<void>((done, fail) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: `${name}.css` });
    const script = Object.assign(document.createElement("script"), { src: `${name}.js`, onload: () => done(), onerror: () => {
      loading.delete(name); // so that the next visit tries again
      fail(new Error("This view could not be loaded: is `diascope explore` still running?"));
    } });
    document.head.append(style, script);
  });
  loading.set(name, begun);
  return begun;
}

export type Given = { kind: string } & Record<string, string>;

// One of the views of views.js; `given` says which, and of what.
export function Later({ given }: { given: Given }) {
  const into = useRef<HTMLDivElement>(null);
  const [note, setNote] = useState({ text: "Loading…", error: false });
  const key = JSON.stringify(given);
  useEffect(() => {
    let current = true;
    load("views").then(
      () => {
        if (!current) return;
        setNote({ text: "", error: false });
        (window as any).views.show(into.current!, given);
      },
      (e: Error) => current && setNote({ text: e.message, error: true }),
    );
    return () => {
      current = false;
    };
  }, [key]);
  useEffect(() => {
    const element = into.current!;
    return () => (window as any).views?.hide(element);
  }, []);
  return (
    <>
      {note.text && <p class={note.error ? "notice error" : "notice"} role={note.error ? "alert" : "status"}>{note.text}</p>}
      <div ref={into} />
    </>
  );
}
