"use strict";
// Elements are made by name and filled with text: nothing that a model or a user wrote is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick`, ...) and children, which are elements or text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** One of the symbols that the document defines; words beside it or a label say what it means. */
function icon(name) {
  const made = document.createElementNS(SVG, "svg"), use = document.createElementNS(SVG, "use");
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  use.setAttribute("href", "#icon-" + name);
  made.append(use);
  return made;
}

/** A button of one symbol, whose label is read out and shown on hover. */
function iconButton(label, symbol, action) {
  const named = {"aria-label": label, title: label};
  return element("button", {type: "button", class: "quiet", onclick: action, ...named}, icon(symbol));
}

/** A button of words. */
function wordButton(label, kind, action) {
  return element("button", {type: "button", class: kind, onclick: action}, label);
}

/** Give a text field the height of its text; the style sheet bounds it. */
function fitHeight(field) {
  field.style.height = "auto";
  field.style.height = field.scrollHeight + "px";
}

/** Copy a text, or select it where a page may not write to the clipboard; says which on the button. */
async function copyText(text, button, shown) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(shown);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}
