// A button that puts a latent into a list, and the one dialogue behind all such buttons.
import { useEffect, useRef, useState } from "preact/hooks";
import { change, make, useFresh, type Listed } from "./api";

const ASKED = "diascope-add"; // an event, because views of other scripts have the button too
type Wanted = { source: string; latent: number };

export function AddTo({ source, latent, small }: Wanted & { small?: boolean }) {
  const open = (e: Event) => {
    e.stopPropagation(); // a row of a table is a link
    dispatchEvent(new CustomEvent<Wanted>(ASKED, { detail: { source, latent } }));
  };
  return <button type="button" class={small ? "adder" : ""} aria-label={`add ${source}/${latent} to a list`} data-tip={small ? "add to a list" : undefined} onClick={open}>{small ? "+" : "Add to list"}</button>;
}

export function Adding() {
  const [wanted, setWanted] = useState<Wanted | null>(null);
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const asked = (e: Event) => setWanted((e as CustomEvent<Wanted>).detail);
    const gone = () => dialog.current?.close();
    addEventListener(ASKED, asked);
    addEventListener("hashchange", gone);
    return () => {
      removeEventListener(ASKED, asked);
      removeEventListener("hashchange", gone);
    };
  }, []);
  useEffect(() => {
    if (wanted && !dialog.current?.open) dialog.current?.showModal();
  }, [wanted]);
  if (!wanted) return null;
  return (
    <dialog ref={dialog} class="panel adding" aria-label={`add ${wanted.source}/${wanted.latent} to a list`} onClose={() => setWanted(null)} onClick={(e) => outside(e, dialog.current!) && dialog.current?.close()}>
      <Choices key={`${wanted.source}/${wanted.latent}`} {...wanted} close={() => dialog.current?.close()} />
    </dialog>
  );
}

// Whether a click was on the backdrop: its target is the dialogue, as that of a click on the padding is.
function outside(e: MouseEvent, dialog: HTMLDialogElement): boolean {
  const box = dialog.getBoundingClientRect();
  return e.target === dialog && (e.clientX < box.left || e.clientX > box.right || e.clientY < box.top || e.clientY > box.bottom);
}

function Choices({ source, latent, close }: Wanted & { close: () => void }) {
  const { data, error } = useFresh<Listed[]>(`/api/lists?${new URLSearchParams({ source, latent: String(latent) })}`);
  const [note, setNote] = useState("");
  const [name, setName] = useState("");
  const [problem, setProblem] = useState("");
  const tried = (work: Promise<unknown>) => work.then(() => setProblem(""), (e: Error) => setProblem(e.message));
  const toggle = (list: Listed) => tried(change(list.id, list.has ? "remove" : "add", list.has ? { source, latent } : { source, latent, note }));
  const create = (e: Event) => {
    e.preventDefault();
    void tried(make(name.trim(), [{ source, latent, note }]).then(() => setName("")));
  };
  return (
    <>
      <header class="bar"><h2>{source}/{latent}</h2><button type="button" aria-label="close" onClick={close}>×</button></header>
      <label class="stack">note<textarea rows={2} maxLength={10000} value={note} placeholder="may be left empty; goes with it into a list chosen below" onInput={(e) => setNote(e.currentTarget.value)} /></label>
      {(problem || error) && <p class="notice error" role="alert">{problem || error}</p>}
      <ul class="choices">
        {data?.map((l) => (
          <li key={l.id}><button type="button" aria-pressed={l.has} onClick={() => void toggle(l)}>{l.has ? "✓ " : ""}{l.name}</button><a class="small" href={`#/lists/${l.id}`}>{l.latents} latent{l.latents === 1 ? "" : "s"}</a></li>
        ))}
      </ul>
      <form class="row" onSubmit={create}>
        <input aria-label="new list" maxLength={200} placeholder="new list" value={name} onInput={(e) => setName(e.currentTarget.value)} />
        <button disabled={!name.trim()}>Make it</button>
      </form>
    </>
  );
}
