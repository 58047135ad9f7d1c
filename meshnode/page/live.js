// The session, and the stream of the mesh: followed for as long as the page is open, across restarts of the node.

const KEY = "meshnode-session";
const SILENCE_MS = 10_000; // the stream carries something every 2 s

// Gives the code in the address for a session, and takes it out of the address bar and the history entry at once.
export const signIn = async () => {
  const code = location.hash.slice(1);
  if (/^[\w-]{32}$/.test(code)) {
    history.replaceState(null, "", location.pathname);
    const answer = await fetch("/page/session", { method: "POST", body: JSON.stringify({ code }), cache: "no-store" });
    if (answer.ok) sessionStorage.setItem(KEY, (await answer.json()).session);
  }
  return sessionStorage.getItem(KEY) !== null;
};

const ask = (route, options = {}) =>
  fetch(route, { cache: "no-store", ...options, headers: { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } });

export const askPlan = async (wish) => {
  const answer = await ask("/page/plan", { method: "POST", body: JSON.stringify(wish) });
  const content = await answer.json();
  return answer.ok ? content : { result: "refused", ...content.error };
};

// Calls `on.part(name, value)`, `on.events(events, missed)`, `on.alive(hello)`, `on.lost()`, `on.signedOut()`.
export class Stream {
  #on;
  #after = 0;
  #incarnation = null;
  #wake = () => {};

  constructor(on) {
    this.#on = on;
  }

  async run() {
    let pause = 500;
    for (;;) {
      try {
        await this.#follow(() => (pause = 500));
      } catch (problem) {
        if (problem instanceof SignedOut) {
          this.#on.signedOut();
          await new Promise((again) => (this.#wake = again));
          continue;
        }
      }
      this.#on.lost();
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(pause * 2, 5_000);
    }
  }

  // Somebody signed in again.
  again() {
    this.#wake();
  }

  async #follow(alive) {
    const stop = new AbortController();
    let watch = setTimeout(() => stop.abort(), SILENCE_MS);
    try {
      const answer = await ask(`/page/live?after=${this.#after}`, { signal: stop.signal });
      if (answer.status === 401) throw new SignedOut();
      if (!answer.ok) throw new Error(`answered ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(watch);
        watch = setTimeout(() => stop.abort(), SILENCE_MS);
        alive();
        const frames = (text + value).split("\n\n");
        text = frames.pop();
        for (const frame of frames) if (!this.#take(frame)) return;
      }
    } finally {
      clearTimeout(watch);
      stop.abort();
    }
  }

  // False where the stream must be begun anew: another run of the node numbers its events from 1 again.
  #take(frame) {
    const [kind, data] = frame.split("\n");
    if (!data?.startsWith("data: ")) return true;
    const content = JSON.parse(data.slice(6));
    if (kind === "event: hello") {
      const restarted = this.#incarnation !== null && this.#incarnation !== content.incarnation;
      this.#incarnation = content.incarnation;
      if (restarted && this.#after) {
        this.#after = 0;
        return false;
      }
      this.#on.alive(content);
    } else if (kind === "event: part") {
      this.#on.part(content.part, content.value);
    } else if (kind === "event: events") {
      const last = content.events.at(-1);
      if (last) this.#after = last.id;
      this.#on.events(content.events, content.missed);
    }
    return true;
  }
}

class SignedOut extends Error {}
