"use strict";
// A base model continues a text: the text above, what the model writes below it, and both together when it continues.

class Continuation {
  constructor(model, settings, writer, panel) {
    this.model = model;
    this.settings = settings;
    this.writer = writer;
    this.panel = panel;
    this.field = document.getElementById("manuscript");
    this.list = document.getElementById("turns");
    this.actions = {again: () => this.again(), accept: () => this.accept(), remove: () => this.remove()};
    this.written = null; // the view of the continuation
    this.field.value = tabOnly.read("manuscript") ?? "";
    this.field.addEventListener("input", () => this.typed());
    this.field.addEventListener("keydown", event => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) this.send();
    });
    document.getElementById("message").hidden = true;
    document.getElementById("send-label").textContent = "Continue";
    document.getElementById("continuation").hidden = false;
    fitHeight(this.field);
  }

  typed() {
    fitHeight(this.field);
    tabOnly.write("manuscript", this.field.value || null);
  }

  /** Continue the text and what was written after it. */
  send() {
    if (this.writer.writing || !this.settings.sampling()) return;
    this.accept();
    this.again();
  }

  again() {
    const sampling = this.writer.writing ? null : this.settings.sampling();
    if (!sampling || !this.field.value) return;
    const turn = new Turn("assistant", "", null);
    this.written = new TurnView(turn, this.actions, this.panel, false);
    this.list.replaceChildren(this.written.element);
    const body = {model: this.model.id, prompt: this.field.value, ...sampling};
    return this.writer.write(turn, this.written, "v1/completions", body);
  }

  /** Make what was written a part of the text, to be changed and continued. */
  accept() {
    this.field.value += this.written?.turn.text ?? "";
    this.typed();
    this.remove();
  }

  remove() {
    this.written = null;
    this.list.replaceChildren();
    this.field.focus();
  }

  show() {
    this.written?.update();
  }

  clear() {
    this.writer.stop();
    this.field.value = "";
    this.typed();
    this.remove();
  }

  /** The row of a text corpus that the text is. */
  row() {
    return {text: this.field.value + (this.written?.turn.text ?? "")};
  }
}
