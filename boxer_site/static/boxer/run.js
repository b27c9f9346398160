// Shows what a run prints while it runs (server-sent events), and buttons that copy.
// What a program prints becomes text nodes alone, never markup.
const MOST = 256 * 1024; // characters of each stream that stay in the page
const UNSEEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
const SEQUENCE = /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-OQ-WYZ`-~]/g;
const FLAGS = { 1: "bold", 2: "faint", 3: "italic", 4: "underlined" };

class Terminal {
  constructor(pre) {
    this.pre = pre;
    this.decoder = new TextDecoder();
    this.rest = "";
    this.length = 0;
    this.reset();
  }
  reset() { this.flags = new Set(); this.colour = this.ground = null; }
  write(bytes) {
    let text = this.rest + this.decoder.decode(bytes, { stream: true });
    // A sequence or a line end that isn't whole yet waits for what comes next.
    const cut = text.search(/(?:\x1b[^a-zA-Z\x07]{0,200}|\r)$/);
    this.rest = cut < 0 ? "" : text.slice(cut);
    text = (cut < 0 ? text : text.slice(0, cut)).replace(/\r+\n?/g, "\n");
    const below = this.pre.scrollHeight - this.pre.scrollTop - this.pre.clientHeight < 40;
    let at = 0;
    for (const found of text.matchAll(SEQUENCE)) {
      this.put(text.slice(at, found.index));
      at = found.index + found[0].length;
      if (found[2] === "m" && /^[0-9;]*$/.test(found[1])) this.render(found[1].split(";").map(Number));
    }
    this.put(text.slice(at));
    while (this.length > MOST && this.pre.childNodes.length > 1) {
      this.length -= this.pre.firstChild.textContent.length;
      this.pre.firstChild.remove();
    }
    if (below) this.pre.scrollTop = this.pre.scrollHeight;
  }
  put(text) {
    if (!text) return;
    const span = document.createElement("span");
    span.className = [
      ...[...this.flags].map((flag) => `a-${flag}`),
      ...(this.colour === null ? [] : [`a-c${this.colour}`]),
      ...(this.ground === null ? [] : [`a-g${this.ground}`]),
    ].join(" ");
    span.textContent = text.replace(UNSEEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
    this.length += span.textContent.length;
    this.pre.append(span);
  }
  render(numbers) {
    while (numbers.length) {
      const n = numbers.shift();
      if (n === 38 || n === 48) {
        const kind = numbers.shift();
        const given = numbers.splice(0, kind === 5 ? 1 : kind === 2 ? 3 : 0);
        const colour = kind === 5 && given[0] < 16 ? given[0] : null;
        if (n === 38) this.colour = colour; else this.ground = colour;
      } else if (n === 0) this.reset();
      else if (FLAGS[n]) this.flags.add(FLAGS[n]);
      else if (n === 22) { this.flags.delete("bold"); this.flags.delete("faint"); }
      else if (n === 23) this.flags.delete("italic");
      else if (n === 24) this.flags.delete("underlined");
      else if (n >= 30 && n <= 37) this.colour = n - 30;
      else if (n >= 90 && n <= 97) this.colour = n - 82;
      else if (n >= 40 && n <= 47) this.ground = n - 40;
      else if (n >= 100 && n <= 107) this.ground = n - 92;
      else if (n === 39) this.colour = null;
      else if (n === 49) this.ground = null;
    }
  }
}

function follow(note) {
  const events = new EventSource(note.dataset.follow);
  for (const pre of document.querySelectorAll("pre[data-stream]")) {
    const terminal = new Terminal(pre);
    events.addEventListener(pre.dataset.stream, (event) => {
      const raw = atob(JSON.parse(event.data).base64);
      terminal.write(Uint8Array.from(raw, (one) => one.charCodeAt(0)));
    });
  }
  events.addEventListener("status", (event) => { note.textContent = JSON.parse(event.data).status; });
  events.addEventListener("end", () => { events.close(); location.reload(); });
}

const note = document.querySelector("[data-follow]");
if (note) follow(note);

for (const block of document.querySelectorAll(".copied")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("pre").textContent);
    button.textContent = "Copied";
  });
  block.append(button);
}
