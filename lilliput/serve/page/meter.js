"use strict";
// Figures of the newest answer: speed, what was read and what a kept state saved reading, and the size of the state.

const UNITS = ["bytes", "KiB", "MiB", "GiB"];
const SHOW_EVERY = 200; // milliseconds

function bytesText(bytes) {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), UNITS.length - 1);
  const amount = bytes / 1024 ** power;
  return (power === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)) + " " + UNITS[power];
}

function countText(count) {
  return count.toLocaleString("en");
}

function speedText(speed) {
  return (speed < 100 ? speed.toFixed(1) : countText(Math.round(speed))) + " tokens/s";
}

class Meter {
  constructor() {
    this.line = document.getElementById("meter");
    this.model = null;
    this.usage = null;
    this.clear();
  }

  clear() {
    this.asked = this.first = this.last = this.shown = 0;
    this.written = 0;
    this.line.replaceChildren();
  }

  begin() {
    const before = this.usage?.total_tokens ?? 0;
    this.clear();
    this.usage = null;
    this.before = before; // what the state holds, until the server says how long the prompt was
    this.asked = performance.now();
  }

  count(tokens) {
    if (!tokens) return;
    this.last = performance.now();
    this.first ||= this.last;
    this.written += tokens;
    if (this.last - this.shown > SHOW_EVERY) this.show();
  }

  end(usage) {
    this.usage = usage ?? this.usage;
    this.show();
  }

  show() {
    this.shown = performance.now();
    const figures = [...this.speed(), ...this.reading(), ...this.state()];
    this.line.replaceChildren(...figures.map(([text, meaning]) => element("span", {title: meaning}, text)));
  }

  speed() {
    const seconds = (this.last - this.first) / 1000, waited = (this.first - this.asked) / 1000;
    const figures = [];
    if (seconds > 0) figures.push([speedText((this.written - 1) / seconds), "Tokens a second, after the first"]);
    if (this.first) figures.push([waited.toFixed(2) + " s to the first", "Time from the request to the first token"]);
    return figures;
  }

  reading() {
    if (!this.usage) return [];
    const reused = this.usage.prompt_tokens_details?.cached_tokens ?? 0;
    return [
      [countText(this.usage.prompt_tokens - reused) + " tokens read", "Tokens of the prompt that had to be read"],
      [countText(reused) + " reused", "Tokens of the prompt that a kept state held already"],
    ];
  }

  state() {
    const bytes = this.stateBytes();
    if (bytes === null) return [];
    const meaning = this.model.states_grow ? "It grows with the text" : "The same for a text of any length";
    return [["state " + bytesText(bytes), meaning]];
  }

  /** Bytes of the state of this conversation, or null where the server does not say. */
  stateBytes() {
    if (!this.model?.state_bytes) return null;
    if (!this.model.states_grow) return this.model.state_bytes;
    const tokens = this.usage?.total_tokens ?? this.before + this.written;
    return this.model.state_bytes * Math.min(tokens / this.model.context, 1);
  }
}
