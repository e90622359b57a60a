"use strict";
// One message on the page: its text, what can be done with it, and what went wrong.

class TurnView {
  /**
   * `actions` has functions of the turn: `again`, and of a conversation `edit(turn, text)` and `step(turn, places)`; of
   * a continued text `accept` and `remove`. `panel` shows distributions. `markdown` is false for a continued text.
   */
  constructor(turn, actions, panel, markdown) {
    this.turn = turn;
    this.actions = actions;
    this.panel = panel;
    this.markdown = markdown;
    this.writing = false;
    this.frame = 0;
    this.tokenView = null;
    this.body = element("div", {class: "body"});
    this.trouble = element("div", {class: "trouble"});
    this.bar = element("div", {class: "actions"});
    const speaker = turn.role === "user" ? "You" : markdown ? "Model" : "Continuation";
    this.element = element(
      "li", {class: "turn " + turn.role},
      element("h2", {class: "unseen"}, speaker), this.body, this.trouble, this.bar,
    );
    this.update();
  }

  /** Show the text soon; at most once a frame, however many tokens come. */
  changed(then) {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.showText();
      then();
    });
  }

  /** Show everything as it is now. */
  update() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.element.classList.toggle("writing", this.writing);
    this.element.setAttribute("aria-busy", String(this.writing));
    this.showText();
    this.showTrouble();
    this.showActions();
  }

  showText() {
    const {text, tokens, role} = this.turn;
    const asTokens = document.body.classList.contains("with-tokens") && tokens.length > 0;
    this.element.classList.toggle("waiting", this.writing && !text && !tokens.length);
    this.body.classList.toggle("plain", role === "user" || !this.markdown || asTokens);
    if (asTokens) {
      if (!this.tokenView) {
        const label = "Tokens; arrow keys go from one to the next";
        const container = element("div", {class: "tokens", role: "group", "aria-label": label});
        this.tokenView = new TokenView(container, this.panel);
        this.body.replaceChildren(container);
      }
      this.tokenView.update(tokens);
      return;
    }
    if (this.tokenView) {
      this.tokenView = null;
      renderMarkdown(this.body, "");
      this.body.replaceChildren();
    }
    if (role === "user" || !this.markdown) this.body.textContent = text;
    else renderMarkdown(this.body, text);
  }

  showTrouble() {
    const {error, note} = this.turn;
    this.trouble.replaceChildren();
    if (error) {
      this.trouble.append(element(
        "div", {class: "error", role: "alert"},
        element("p", {}, element("strong", {}, error.message), " " + error.advice),
        wordButton("Try again", "plainly", () => this.actions.again(this.turn)),
      ));
    } else if (note) {
      this.trouble.append(element("p", {class: "note"}, note));
    }
  }

  showActions() {
    const {turn, actions} = this, of = name => () => actions[name](turn);
    const buttons = [];
    if (!this.writing) {
      if (turn.parent?.branches.length > 1) buttons.push(this.branchSwitch());
      if (turn.role === "user") buttons.push(iconButton("Edit", "edit", () => this.edit()));
      if (turn.role === "assistant" && !turn.error) buttons.push(iconButton("Try again", "again", of("again")));
      if (turn.role === "assistant" && turn.text) buttons.push(this.copyButton());
      if (actions.accept && turn.text) buttons.push(wordButton("Add to the text", "quiet", of("accept")));
      if (actions.remove) buttons.push(wordButton("Remove", "quiet", of("remove")));
    }
    this.bar.replaceChildren(...buttons);
  }

  copyButton() {
    const button = wordButton("Copy", "quiet", () => copyText(this.turn.text, button, this.body));
    return button;
  }

  branchSwitch() {
    const {branches} = this.turn.parent, place = branches.indexOf(this.turn);
    const earlier = iconButton("Earlier version", "left", () => this.actions.step(this.turn, -1));
    const later = iconButton("Later version", "right", () => this.actions.step(this.turn, 1));
    earlier.disabled = place === 0;
    later.disabled = place === branches.length - 1;
    return element("span", {class: "branches"}, earlier, `${place + 1} of ${branches.length}`, later);
  }

  /** Change the message in place; Enter sends it, Escape leaves it as it was. */
  edit() {
    const field = element("textarea", {"aria-label": "Edited message", rows: "1", oninput: () => fitHeight(field)});
    field.value = this.turn.text;
    const done = () => {
      this.element.classList.remove("editing");
      this.update();
    };
    const send = () => {
      if (!field.value.trim() || !this.actions.edit(this.turn, field.value.trim())) return;
      done();
    };
    const leave = () => {
      done();
      this.bar.querySelector("button[aria-label=Edit]").focus();
    };
    field.addEventListener("keydown", event => {
      if (event.key === "Escape") {
        event.stopPropagation();
        leave();
      }
      if (sends(event)) send();
    });
    this.element.classList.add("editing");
    this.body.replaceChildren(field);
    this.bar.replaceChildren(
      wordButton("Send", "strong", send),
      wordButton("Cancel", "quiet", leave),
    );
    fitHeight(field);
    field.focus();
  }
}

/** Whether a key press sends a message: Enter alone, and not the one that ends a composed character. */
function sends(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return false;
  event.preventDefault();
  return true;
}
