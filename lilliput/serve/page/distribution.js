"use strict";
// The next-token distribution: a written text token by token, and for each the probability that it had beside those of
// the likeliest others. Pointer, touch and arrow keys reach every token; the text is one stop of the Tab key.

const ALTERNATIVES = 4;
const CONTROL_PICTURES = 0x2400; // pictures of the control characters, in their order

/** A token with its white space to be seen; the bytes of one that is a part of a character. */
function visibleToken({token, bytes}) {
  if (bytes && token.includes("\ufffd")) return bytes.map(byte => "\\x" + byte.toString(16).padStart(2, "0")).join("");
  const marked = token.replace(/^ +| +$/g, spaces => "·".repeat(spaces.length));
  return marked.replace(/[\0-\x1f]/g, picture) || "(no text)";
}

/** What stands for a character that has no width, so that it can be seen and pointed at. */
function picture(letter) {
  return {"\n": "↵", "\t": "⇥"}[letter] ?? String.fromCharCode(CONTROL_PICTURES + letter.charCodeAt());
}

function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return share < 0.1 ? "< 0.1 %" : share.toFixed(1) + " %";
}

/** The token that was written, then the likeliest others; the whole in order of probability. */
function candidatesOf({likeliest, ...token}) {
  const named = JSON.stringify([token.token, token.bytes]);
  const others = likeliest.filter(other => JSON.stringify([other.token, other.bytes]) !== named);
  const all = [{...token, written: true}, ...others.slice(0, ALTERNATIVES)];
  return all.sort((one, other) => other.logprob - one.logprob);
}

/** A text as its tokens; the less likely a token was, the darker its ground. */
class TokenView {
  constructor(container, panel) {
    this.container = container;
    this.panel = panel;
    this.tokens = [];
    container.addEventListener("mouseover", event => this.point(event.target));
    container.addEventListener("mouseleave", () => panel.hide());
    container.addEventListener("focusin", event => this.point(event.target));
    container.addEventListener("focusout", () => panel.hide());
    container.addEventListener("keydown", event => this.move(event));
  }

  /** Show tokens: all of them, of which those that stand there already stay. */
  update(tokens) {
    const known = this.tokens.length;
    for (const [index, token] of tokens.slice(known).entries()) this.container.append(this.span(token, known + index));
    this.tokens = [...tokens];
  }

  span(token, index) {
    const seen = token.token.replace(/[\0-\x1f]/g, letter => picture(letter) + (letter === "\n" ? letter : ""));
    const place = {tabindex: index === 0 ? "0" : "-1", "data-index": index};
    const made = element("span", {class: "token", ...place}, seen || "∅");
    made.style.setProperty("--doubt", (1 - Math.exp(token.logprob)).toFixed(3));
    return made;
  }

  point(target) {
    const token = this.tokens[target.dataset.index];
    if (token) this.panel.show(target, token);
  }

  move(event) {
    const steps = {ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity};
    if (event.key === "Escape" && this.panel.shown) {
      event.stopPropagation(); // an answer continues
      this.panel.hide();
    }
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const {children} = this.container;
    const next = Math.min(Math.max(Number(event.target.dataset.index) + steps[event.key], 0), children.length - 1);
    event.target.tabIndex = -1;
    children[next].tabIndex = 0;
    children[next].focus();
  }
}

/** The panel beside a token, shared by all of them. */
class DistributionPanel {
  constructor() {
    this.panel = document.getElementById("distribution");
    this.token = null;
    addEventListener("scroll", () => this.place(), {passive: true});
  }

  get shown() {
    return this.token !== null;
  }

  show(target, token) {
    this.hide();
    this.token = target;
    target.setAttribute("aria-describedby", this.panel.id);
    this.panel.replaceChildren(...candidatesOf(token).map(candidate => this.row(candidate)));
    this.panel.hidden = false;
    this.place();
  }

  /** Lie below the token, or above it where there is no room below. */
  place() {
    if (!this.token) return;
    const box = this.token.getClientRects()[0], {offsetWidth, offsetHeight} = this.panel;
    const below = box.bottom + 8 + offsetHeight < innerHeight || box.top < offsetHeight + 8;
    const right = document.documentElement.clientWidth - offsetWidth - 8;
    this.panel.style.left = Math.max(8, Math.min(box.left, right)) + "px";
    this.panel.style.top = (below ? box.bottom + 8 : box.top - offsetHeight - 8) + "px";
  }

  row(candidate) {
    const bar = element("i");
    bar.style.width = 100 * Math.exp(candidate.logprob) + "%";
    return element(
      "div", {class: candidate.written ? "candidate written" : "candidate"},
      element("code", {}, visibleToken(candidate)),
      element("span", {class: "bar", "aria-hidden": "true"}, bar),
      element("span", {class: "share"}, percent(candidate.logprob)),
    );
  }

  hide() {
    this.token?.removeAttribute("aria-describedby");
    this.token = null;
    this.panel.hidden = true;
  }
}
