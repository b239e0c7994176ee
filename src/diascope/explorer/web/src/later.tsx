// Views whose script is loaded when one of them is first visited: they draw into an element of ours.
import { useEffect, useRef, useState } from "preact/hooks";

const loading = new Map<string, Promise<void>>();

// Load /<name>.js and /<name>.css once; both have to be there, or a view would be drawn without its style and then jump under the pointer.
export async function load(name: string): Promise<void> {
  await Promise.all([added(`${name}.css`, "link", { rel: "stylesheet", href: `${name}.css` }), added(`${name}.js`, "script", { src: `${name}.js` })]);
}

function added(file: string, tag: "link" | "script", attributes: Record<string, string>): Promise<void> {
  const begun = loading.get(file) ?? new Promise<void>((done, fail) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.onload = () => done();
    element.onerror = () => {
      loading.delete(file); // so that the next visit tries again
      element.remove();
      fail(new Error("This view could not be loaded: is `diascope explore` still running?"));
    };
    document.head.append(element);
  });
  loading.set(file, begun);
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
