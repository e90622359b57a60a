"use strict";
// The next-token distribution: a written text token by token, and for each the probability that it had beside those of
// the likeliest others. Pointer, touch and arrow keys reach every token; the text is one stop of the Tab key.

const ALTERNATIVES = 4;
const MARKS = {"\n": "↵", "\t": "⇥", " ": "·", "\r": "␍"};

/** A token with its white space to be seen. */
function visibleToken(token) {
  const marked = token.replace(/[\n\t\r]|^ +| +$/g, space => [...space].map(each => MARKS[each]).join(""));
  return marked || "(no text)";
}

function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return share < 0.1 ? "< 0.1 %" : share.toFixed(1) + " %";
}

/** The token that was written, then the likeliest others; the whole in order of probability. */
function candidatesOf({token, logprob, likeliest}) {
  const others = likeliest.filter(other => other.token !== token).slice(0, ALTERNATIVES);
  const all = [{token, logprob, written: true}, ...others];
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
    const text = token.token.replaceAll("\n", "↵\n");
    const made = element("span", {class: "token", tabindex: index === 0 ? "0" : "-1", "data-index": index}, text);
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
      event.stopPropagation(); // an answer goes on
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

  row({token, logprob, written}) {
    const bar = element("i");
    bar.style.width = 100 * Math.exp(logprob) + "%";
    return element(
      "div", {class: written ? "candidate written" : "candidate"},
      element("code", {}, visibleToken(token)),
      element("span", {class: "bar", "aria-hidden": "true"}, bar),
      element("span", {class: "share"}, percent(logprob)),
    );
  }

  hide() {
    this.token?.removeAttribute("aria-describedby");
    this.token = null;
    this.panel.hidden = true;
  }
}
