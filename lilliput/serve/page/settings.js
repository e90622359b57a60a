"use strict";
// The system prompt and how tokens are drawn. An empty field leaves the choice to the server, which takes the model's.

const SAMPLING = ["temperature", "top_p", "min_p", "max_tokens", "seed"];

class Settings {
  constructor() {
    this.panel = document.getElementById("settings");
    this.form = document.getElementById("settings-form");
    this.button = document.getElementById("settings-button");
    this.fill(lasting.read("settings") ?? {});
    this.form.addEventListener("input", () => this.remember());
    this.form.addEventListener("submit", event => event.preventDefault());
    this.form.addEventListener("reset", () => setTimeout(() => this.remember())); // fields are empty after the event
    this.button.addEventListener("click", () => this.show(this.panel.hidden));
    document.getElementById("settings-close").addEventListener("click", () => this.show(false));
    this.panel.addEventListener("keydown", event => {
      if (event.key !== "Escape") return;
      event.stopPropagation(); // an answer continues
      this.show(false);
    });
    document.addEventListener("click", event => {
      if (this.covers() && !event.target.closest("#settings, #settings-button")) this.show(false);
    });
  }

  get system() {
    return this.form.elements.system.value.trim();
  }

  /** Fields of a request. Shows a field that cannot be sent, and is null then. */
  sampling() {
    if (!this.form.checkValidity()) {
      this.show(true);
      this.form.reportValidity();
      return null;
    }
    const given = SAMPLING.filter(name => this.form.elements[name].value !== "");
    return Object.fromEntries(given.map(name => [name, Number(this.form.elements[name].value)]));
  }

  fill(values) {
    for (const name of ["system", ...SAMPLING]) this.form.elements[name].value = values[name] ?? "";
  }

  remember() {
    const values = ["system", ...SAMPLING].map(name => [name, this.form.elements[name].value]);
    const given = values.filter(([, value]) => value !== "");
    lasting.write("settings", given.length ? Object.fromEntries(given) : null);
  }

  show(shown) {
    this.panel.hidden = !shown;
    this.button.setAttribute("aria-expanded", String(shown));
    if (shown) this.form.querySelector("textarea, input").focus();
    else this.button.focus();
  }

  /** Whether the panel lies over the conversation, as it does on a narrow screen. */
  covers() {
    return !this.panel.hidden && getComputedStyle(this.panel).position === "fixed";
  }
}
