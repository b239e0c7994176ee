// What runs, waits, or ended lately in the model's thread.
import { useEffect, useState } from "preact/hooks";
import { ask } from "../api";

type Job = { job: string; title: string; state: string; events: number; last: string };
type Told = { state: string; ahead: number; jobs: Job[] };

export function Jobs() {
  const [told, setTold] = useState<Told>();
  const [error, setError] = useState("");
  useEffect(() => {
    let current = true;
    let timer: ReturnType<typeof setTimeout>;
    const look = () => ask<Told>("/api/jobs").then(
      (t) => { if (current) { setTold(t); setError(""); } },
      (e: Error) => { if (current) setError(e.message); },
    ).then(() => { if (current) timer = setTimeout(look, 1500); });
    void look();
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, []);
  const cancel = (job: Job) => ask(`/api/jobs/${encodeURIComponent(job.job)}/cancel`, {}).catch((e: Error) => setError(e.message));
  return (
    <section class="jobs">
      <h2>Jobs of this explorer</h2>
      {error && <p class="notice error" role="alert">{error}</p>}
      {told?.state === "absent" && <p class="faint">Browsing only: there is no model, so there are no jobs.</p>}
      {told && told.state !== "absent" && told.jobs.length === 0 && <p class="faint">None: steering and interventions appear here.</p>}
      {told && told.jobs.length > 0 && (
        <div class="scroll"><table>
          <thead><tr><th scope="col">job</th><th scope="col">state</th><th scope="col" class="num">events</th><th scope="col" /></tr></thead>
          <tbody>{[...told.jobs].reverse().map((j) => (
            <tr key={j.job}><td>{j.title || j.job}</td><td>{j.state}</td><td class="num">{j.events}</td><td class="num">{(j.state === "waiting" || j.state === "running") && <button type="button" onClick={() => void cancel(j)}>Cancel</button>}</td></tr>
          ))}</tbody>
        </table></div>
      )}
    </section>
  );
}
