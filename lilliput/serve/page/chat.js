"use strict";
// The chat: what is typed, sent, answered, edited and answered again.

class Chat {
  constructor(model, settings, writer, panel) {
    this.model = model;
    this.settings = settings;
    this.writer = writer;
    this.panel = panel;
    this.field = document.getElementById("message");
    this.list = document.getElementById("turns");
    this.welcome = document.getElementById("welcome");
    this.views = new Map();
    this.actions = {
      again: turn => this.again(turn),
      edit: (turn, text) => this.ask(turn.parent, text),
      step: (turn, places) => this.step(turn, places),
    };
    this.conversation = Conversation.from(tabOnly.read("conversation"));
    this.field.value = tabOnly.read("draft") ?? "";
    this.field.addEventListener("input", () => this.typed());
    this.field.addEventListener("keydown", event => {
      if (sends(event)) this.send();
    });
    addEventListener("pagehide", () => this.leave());
    this.show();
    fitHeight(this.field);
  }

  /** Remember what was written of an answer that a reload ends. */
  leave() {
    if (!this.writer.writing) return;
    this.conversation.last().note = "Stopped.";
    this.save();
    this.writer.stop();
  }

  typed() {
    fitHeight(this.field);
    tabOnly.write("draft", this.field.value || null);
  }

  /** Send what is typed; it stays in the field where it cannot be sent. */
  send() {
    const text = this.field.value.trim();
    if (!text || !this.ask(this.conversation.last(), text)) return;
    this.field.value = "";
    this.typed();
  }

  /** Put a message after a turn and have it answered; false where that cannot be now. */
  ask(parent, text) {
    const sampling = this.ready();
    if (!sampling) return false;
    this.answer(this.conversation.add(parent, "user", text), sampling);
    return true;
  }

  /** Answer again, beside the answer that stands there; one that never began is replaced. */
  again(turn) {
    const sampling = this.ready();
    if (!sampling) return;
    if (!turn.text) turn.parent.branches.splice(turn.parent.branches.indexOf(turn), 1);
    this.answer(turn.parent, sampling);
  }

  ready() {
    return this.writer.writing ? null : this.settings.sampling();
  }

  async answer(question, sampling) {
    const messages = this.conversation.messages(this.settings.system, this.conversation.upTo(question));
    const turn = this.conversation.add(question, "assistant", "");
    this.show();
    this.field.focus();
    this.save();
    const body = {model: this.model.id, messages, ...sampling};
    await this.writer.write(turn, this.view(turn), "v1/chat/completions", body);
    this.show();
    this.save();
  }

  step(turn, places) {
    if (this.writer.writing) return;
    this.conversation.step(turn, places);
    this.show();
    this.save();
    const shown = turn.parent.branches[turn.parent.chosen];
    const [earlier, later] = this.view(shown).bar.querySelectorAll(".branches button");
    (places < 0 && !earlier.disabled || later.disabled ? earlier : later).focus();
  }

  view(turn) {
    if (!this.views.has(turn)) this.views.set(turn, new TurnView(turn, this.actions, this.panel, true));
    return this.views.get(turn);
  }

  /** Show the path through the conversation; messages that stand there already stay in place. */
  show() {
    const shown = this.conversation.path().map(turn => this.view(turn));
    for (const [index, view] of shown.entries()) {
      const there = this.list.children[index] ?? null;
      if (there !== view.element) this.list.insertBefore(view.element, there);
      if (!view.writing && !view.element.classList.contains("editing")) view.update();
    }
    while (this.list.children.length > shown.length) this.list.lastChild.remove();
    this.welcome.hidden = shown.length > 0;
  }

  save() {
    tabOnly.write("conversation", this.conversation.root.branches.length ? this.conversation : null);
  }

  clear() {
    this.writer.stop();
    this.conversation = new Conversation();
    this.views.clear();
    this.show();
    this.save();
    this.field.focus();
  }

  /** The row of a chat corpus that the conversation is. */
  row() {
    return {messages: this.conversation.messages(this.settings.system)};
  }
}
