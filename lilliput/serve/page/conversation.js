"use strict";
// A conversation is a tree: an edited message or another answer is a branch beside the first, and nothing is lost.

class Turn {
  constructor(role, text, parent) {
    this.role = role; // "user" or "assistant"; the root has none
    this.text = text;
    this.parent = parent;
    this.branches = [];
    this.chosen = -1; // the branch that is shown
    this.tokens = []; // what was written, token by token, with probabilities
    this.note = ""; // how an answer ended, where that is not plain
    this.error = null; // {message, advice}
  }
}

class Conversation {
  constructor() {
    this.root = new Turn(null, "", null);
  }

  add(parent, role, text) {
    const turn = new Turn(role, text, parent);
    parent.branches.push(turn);
    parent.chosen = parent.branches.length - 1;
    return turn;
  }

  /** The turns that are shown, from the first to the last. */
  path() {
    const turns = [];
    for (let turn = this.root; turn.chosen >= 0;) turns.push(turn = turn.branches[turn.chosen]);
    return turns;
  }

  last() {
    return this.path().at(-1) ?? this.root;
  }

  /** Show the branch so many places after a turn. */
  step(turn, places) {
    const {parent} = turn;
    parent.chosen = Math.min(Math.max(parent.branches.indexOf(turn) + places, 0), parent.branches.length - 1);
  }

  /** Messages up to a turn as the API takes them; an answer that never began is none. */
  messages(system, turns = this.path()) {
    const said = turns.filter(turn => turn.role === "user" || turn.text);
    const first = system ? [{role: "system", content: system}] : [];
    return [...first, ...said.map(turn => ({role: turn.role, content: turn.text}))];
  }

  /** Turns up to one, itself included. */
  upTo(turn) {
    const turns = [];
    for (let each = turn; each.parent; each = each.parent) turns.unshift(each);
    return turns;
  }

  /** What a tab remembers: the texts of all branches, without probabilities. */
  toJSON() {
    const plain = ({role, text, note, error, chosen, branches}) => (
      {role, text, note, error, chosen, branches: branches.map(plain)}
    );
    return plain(this.root);
  }

  static from(stored) {
    const conversation = new Conversation();
    const build = ({role, text, note, error, chosen, branches}, parent) => {
      const turn = Object.assign(new Turn(role, text, parent), {note, error, chosen});
      turn.branches = branches.map(branch => build(branch, turn));
      return turn;
    };
    if (stored) conversation.root = build(stored, null);
    return conversation;
  }
}
