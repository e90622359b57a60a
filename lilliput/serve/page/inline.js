"use strict";
// Markdown inside of a block: code, emphasis and links. One pass over the text in linear time; a marker that nothing
// closes is the text that it is. At most MAX_OPEN markers are open at once, so that no text makes a deep document.

const MAX_OPEN = 12;
const EMPHASIS = {"*": ["em", "strong"], "_": ["em", "strong"], "~": [null, "del"]};
const BARE_URL = /https?:\/\/[^\s<>"`\\]+/y;
const WORD = /[\p{L}\p{N}]/u;

/** The address if a reader may be sent there (http and https alone), else null. */
function safeAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/** A text without the letters of a set at its end. (A regular expression would start again at each of them.) */
function withoutEnd(text, letters) {
  let end = text.length;
  while (end > 0 && letters.includes(text[end - 1])) end--;
  return text.slice(0, end);
}

function link(address) {
  return element("a", {href: address, rel: "noopener noreferrer nofollow", target: "_blank"});
}

class InlineParser {
  constructor(text) {
    this.text = text;
    this.open = [{node: document.createDocumentFragment()}]; // markers that wait for their ends, the innermost last
    this.plain = ""; // text that is not yet in a node
    this.ticks = null;
  }

  parse() {
    let at = 0;
    while (at < this.text.length) at = this.step(at);
    this.flush();
    while (this.open.length > 1) this.giveUp(this.open.length - 1);
    return this.open[0].node;
  }

  /** Read what stands at a position; the position after it. */
  step(at) {
    const letter = this.text[at];
    if (letter === "\\" && /[!-/:-@[-`{-~]/.test(this.text[at + 1] ?? "")) return this.take(this.text[at + 1], at + 2);
    if (letter === "`") return this.code(at);
    if (letter in EMPHASIS) return this.emphasis(at);
    if (letter === "[") return this.push({kind: "[", marker: "[", node: document.createDocumentFragment()}, at + 1);
    if (letter === "]") return this.endOfLink(at);
    if (letter === "h" && !WORD.test(this.text[at - 1] ?? "")) return this.bareAddress(at);
    return this.take(letter, at + 1);
  }

  take(text, next) {
    this.plain += text;
    return next;
  }

  flush() {
    if (this.plain) this.open.at(-1).node.append(this.plain);
    this.plain = "";
  }

  push(marker, next) {
    this.flush();
    if (this.open.length > MAX_OPEN) this.giveUp(1);
    this.open.push(marker);
    return next;
  }

  /** Make an open marker the text that it is, and hand what follows it to the one outside of it. */
  giveUp(index) {
    const [marker] = this.open.splice(index, 1);
    this.open[index - 1].node.append(marker.marker, ...marker.node.childNodes);
  }

  /** Close the innermost marker of a kind around everything since. */
  close(index, node) {
    this.flush();
    while (this.open.length > index + 1) this.giveUp(this.open.length - 1);
    const marker = this.open.pop();
    node.append(...marker.node.childNodes);
    this.open.at(-1).node.append(node);
  }

  code(at) {
    let end = at;
    while (this.text[end] === "`") end++;
    const closing = this.closingTicks(end - at, end);
    if (closing < 0) return this.take(this.text.slice(at, end), end);
    this.flush();
    const inside = this.text.slice(end, closing);
    const padded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim() !== "";
    this.open.at(-1).node.append(element("code", {}, padded ? inside.slice(1, -1) : inside));
    return closing + (end - at);
  }

  /** The next run of as many backticks; runs are found once, and each list of them is walked once. */
  closingTicks(count, from) {
    if (!this.ticks) {
      this.ticks = new Map();
      for (const run of this.text.matchAll(/`+/g)) {
        if (!this.ticks.has(run[0].length)) this.ticks.set(run[0].length, {places: [], next: 0});
        this.ticks.get(run[0].length).places.push(run.index);
      }
    }
    const runs = this.ticks.get(count);
    if (!runs) return -1; // a part of a run, after a backslash
    while (runs.places[runs.next] < from) runs.next++;
    return runs.places[runs.next] ?? -1;
  }

  emphasis(at) {
    const letter = this.text[at];
    let end = at;
    while (this.text[end] === letter && end < at + 3) end++;
    const before = this.text[at - 1] ?? " ", after = this.text[end] ?? " ";
    const inWord = letter === "_" && WORD.test(before) && WORD.test(after);
    if (/\S/.test(before) && !inWord) {
      for (let length = Math.min(end - at, 2); length > 0; length--) {
        const index = this.open.findLastIndex(marker => marker.kind === letter.repeat(length));
        const inner = this.open.findLastIndex(marker => marker.kind === letter || marker.kind === letter + letter);
        if (index > 0 && index === inner && EMPHASIS[letter][length - 1]) {
          this.close(index, element(EMPHASIS[letter][length - 1]));
          return at + length;
        }
      }
    }
    const length = letter === "~" ? 2 : Math.min(end - at, 2);
    if (/\S/.test(after) && !inWord && end - at >= length) {
      const kind = letter.repeat(length);
      return this.push({kind, marker: kind, node: document.createDocumentFragment()}, at + length);
    }
    return this.take(this.text.slice(at, end), end);
  }

  /** A link where a bracket is open and a safe address follows in parentheses; an image is a link to it. */
  endOfLink(at) {
    const index = this.open.findLastIndex(marker => marker.kind === "[");
    const end = this.text[at + 1] === "(" && index > 0 ? this.endOfAddress(at + 2) : -1;
    const address = end < 0 ? null : safeAddress(this.text.slice(at + 2, end).trim().split(/\s/, 1)[0]);
    if (address === null) {
      this.flush();
      if (index > 0) this.giveUp(index);
      return this.take("]", at + 1);
    }
    this.close(index, link(address));
    return end + 1;
  }

  /** The closing parenthesis; an address may have pairs of its own, one deep. */
  endOfAddress(from) {
    let depth = 0;
    for (let at = from; at < this.text.length; at++) {
      const letter = this.text[at];
      if (letter === "\n" || (letter === "(" && ++depth > 1)) return -1;
      if (letter === ")" && depth-- === 0) return at;
    }
    return -1;
  }

  bareAddress(at) {
    BARE_URL.lastIndex = at;
    const found = withoutEnd(BARE_URL.exec(this.text)?.[0] ?? "", ".,;:!?)]*_~'");
    const address = found && !this.open.some(marker => marker.kind === "[") ? safeAddress(found) : null;
    if (address === null) return this.take("h", at + 1);
    this.flush();
    const made = link(address);
    made.append(found);
    this.open.at(-1).node.append(made);
    return at + found.length;
  }
}

/** A fragment of the text with code, emphasis and links. */
function renderInline(text) {
  return new InlineParser(text).parse();
}
