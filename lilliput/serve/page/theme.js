"use strict";
// Light and dark: as the system has it until a reader switches, and then as they chose.

class Theme {
  constructor() {
    this.button = document.getElementById("theme-button");
    this.system = matchMedia("(prefers-color-scheme: dark)");
    this.chosen = lasting.read("theme");
    this.system.addEventListener("change", () => this.apply());
    this.button.addEventListener("click", () => this.switch());
    this.apply();
  }

  get dark() {
    return this.chosen ? this.chosen === "dark" : this.system.matches;
  }

  /** The other theme; the one that the system has is no choice, so that the page follows the system again. */
  switch() {
    const next = this.dark ? "light" : "dark";
    this.chosen = next === (this.system.matches ? "dark" : "light") ? null : next;
    lasting.write("theme", this.chosen);
    this.apply();
  }

  apply() {
    if (this.chosen) document.documentElement.dataset.theme = this.chosen;
    else delete document.documentElement.dataset.theme;
    const label = this.dark ? "Light theme" : "Dark theme";
    this.button.replaceChildren(icon(this.dark ? "sun" : "moon"));
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
  }
}
