// Every audit of the workspace with its verdicts.
import { Copy } from "../copy";
import { Load } from "../load";
import { auditsPython, SIGNS, type Summary, type Verdict } from "./data";

const at = (audit: string) => `#/audits/${encodeURIComponent(audit)}`;

function Verdicts({ verdicts }: { verdicts: Verdict[] }) {
  return (
    <div class="scroll">
      <table>
        <thead><tr><th scope="col">protocol</th><th scope="col">verdict</th><th scope="col">why</th></tr></thead>
        <tbody>
          {verdicts.map((v) => (
            <tr><th scope="row">{v.protocol}</th><td class="verdict"><span aria-hidden="true">{SIGNS[v.verdict] ?? "?"}</span> {v.verdict}</td><td>{v.why}</td></tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function AuditShelf() {
  return (
    <Load<Summary[]> path="/api/audits">
      {(audits) => (
        <section class="audits">
          <header class="bar"><h1>Audits</h1><Copy label="Copy as Python" text={auditsPython} /></header>
          {audits.length === 0 && (
            <p class="notice">There is no audit in this workspace: <code>diascope audit run refusal -m MODEL --out WORKSPACE/audits/NAME</code> makes one.</p>
          )}
          {audits.map((a) => (
            <article class="panel" key={a.audit}>
              <h2>{a.problem ? a.audit : <a href={at(a.audit)}>{a.audit}</a>}</h2>
              <p class="facts small">
                {a.model !== undefined && <span>{a.model}</span>}
                {a.dictionary && <span>{a.dictionary}</span>}
                {a.seed !== undefined && a.seed !== null && <span>seed {a.seed}</span>}
                {a.modified !== undefined && <span>written {new Date(1000 * a.modified).toLocaleString()}</span>}
              </p>
              {a.problem ? <p class="notice error">{a.problem}</p> : <Verdicts verdicts={a.verdicts ?? []} />}
            </article>
          ))}
          {audits.length > 0 && <p class="faint small">No verdict says that a model is honest, faithful or safe.</p>}
        </section>
      )}
    </Load>
  );
}
