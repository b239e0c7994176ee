// Server-sent events of a job, over fetch so that they can be asked for by POST: followed again after a break, from the last
// event that came; ended by a signal.
import { refusal, Refused, UNANSWERED } from "../api";

export type Heard = { id: number; kind: string; data: any };
const LAST = new Set(["done", "failed", "cancelled"]);
const TRIES = 4; // within the server's grace period of five seconds

export async function follow(path: string, body: unknown, signal: AbortSignal, on: (heard: Heard) => void): Promise<void> {
  let job = "";
  let last = 0;
  for (let misses = 0; ; misses++) {
    try {
      const answer = job
        ? await fetch(`/api/jobs/${encodeURIComponent(job)}`, { headers: { "last-event-id": String(last) }, signal })
        : await fetch(path, { method: "POST", headers: { "content-type": "application/json", accept: "text/event-stream" }, body: JSON.stringify(body), signal });
      if (!answer.ok) throw await refusal(answer);
      for await (const heard of events(answer.body!)) {
        misses = 0;
        last = heard.id;
        if (heard.kind === "job") job = heard.data.job;
        on(heard);
        if (LAST.has(heard.kind)) return;
      }
    } catch (e) {
      if (signal.aborted || e instanceof Refused) throw e;
    }
    if (!job || misses >= TRIES) throw new Error(UNANSWERED);
    await new Promise((done) => setTimeout(done, 150 * 2 ** misses));
  }
}

async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<Heard> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop()!;
      for (const part of parts) {
        const found = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
        if (found.event) yield { id: Number(found.id), kind: found.event, data: JSON.parse(found.data!) };
      }
    }
  } finally {
    void reader.cancel().catch(() => {});
  }
}
