"use strict";
// Markdown as models write it: headings, lists, quotes, code, tables, rules and paragraphs. Lines are read once a
// level, and levels are few; what goes deeper is a paragraph.

const MAX_DEPTH = 6;
const MAX_COLUMNS = 32;
const MAX_LENGTH = 100_000; // a longer text is shown as it is
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*))?$/;
const RULE = /^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( {1,4}|\t|$)/;
const rendered = new WeakMap();

/** Show a text in a container. Blocks that stand there already stay, so that a text can grow under a reader's eyes. */
function renderMarkdown(container, text) {
  const blocks = text.length > MAX_LENGTH ? [{kind: "plain", lines: [text]}] : blocksOf(text.split(/\r\n?|\n/), 0);
  const old = rendered.get(container) ?? [];
  const sources = blocks.map(block => block.kind + "\n" + block.lines.join("\n"));
  let same = 0;
  while (same < old.length && old[same] === sources[same]) same++;
  while (container.childNodes.length > same) container.lastChild.remove();
  container.append(...blocks.slice(same).map(block => renderBlock(block, 0)));
  rendered.set(container, sources);
}

/** Part lines into blocks: kind, lines, and what the kind needs. */
function blocksOf(lines, depth) {
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const block = blockAt(lines, at, depth);
    blocks.push(block);
    at += block.lines.length;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence);
  if (HEADING.test(line)) return {kind: "heading", lines: [line]};
  if (RULE.test(line)) return {kind: "rule", lines: [line]};
  if (depth < MAX_DEPTH) {
    if (QUOTE.test(line)) return {kind: "quote", lines: run(lines, at, next => QUOTE.test(next))};
    if (ITEM.test(line)) return {kind: "list", lines: listLines(lines, at)};
  }
  if (isTable(lines, at)) return {kind: "table", lines: run(lines, at, next => next.includes("|"))};
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !interrupts(lines, end, depth)) end++;
  return {kind: "paragraph", lines: lines.slice(at, end)};
}

function run(lines, at, belongs) {
  let end = at + 1;
  while (end < lines.length && belongs(lines[end])) end++;
  return lines.slice(at, end);
}

function fenced(lines, at, [, marks, language]) {
  let end = at + 1;
  const closing = line => line.trim().length >= marks.length && line.trim() === marks[0].repeat(line.trim().length);
  while (end < lines.length && !closing(lines[end])) end++;
  return {kind: "code", language, code: lines.slice(at + 1, end), lines: lines.slice(at, end + 1)};
}

/** Whether a block begins on a line although the paragraph before it has no empty line after it. */
function interrupts(lines, at, depth) {
  const line = lines[at], item = depth < MAX_DEPTH && ITEM.exec(line);
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || isTable(lines, at)) return true;
  if (item) return item[3] !== "" && (/\D/.test(item[2][0]) || Number.parseInt(item[2]) === 1);
  return depth < MAX_DEPTH && QUOTE.test(line);
}

/** The lines of a list: its items, what is indented under them, and empty lines between. */
function listLines(lines, at) {
  const [, indent, marker] = ITEM.exec(lines[at]);
  let end = at + 1, last = at + 1;
  for (; end < lines.length; end++) {
    const item = ITEM.exec(lines[end]);
    if (!lines[end].trim()) continue;
    const indented = lines[end].search(/\S/) > indent.length;
    const sibling = item && item[2].at(-1) === marker.at(-1) && !RULE.test(lines[end]);
    const continued = last === end && !item && !interrupts(lines, end, 0);
    if (!indented && !sibling && !continued) break;
    last = end + 1;
  }
  return lines.slice(at, last);
}

function cellsOf(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inside.split(/(?<!\\)\|/, MAX_COLUMNS + 1).map(cell => cell.trim().replaceAll("\\|", "|"));
}

function isTable(lines, at) {
  if (!lines[at].includes("|") || !lines[at + 1]?.includes("-")) return false;
  const head = cellsOf(lines[at]), rule = cellsOf(lines[at + 1]);
  return head.length <= MAX_COLUMNS && head.length === rule.length && rule.every(cell => /^:?-+:?$/.test(cell));
}

function renderBlock(block, depth) {
  switch (block.kind) {
    case "plain": return element("div", {class: "plain"}, ...block.lines);
    case "rule": return element("hr");
    case "code": return codeBlock(block.code.join("\n"), block.language);
    case "heading": {
      const [, marks, title = ""] = HEADING.exec(block.lines[0]);
      return element("h" + Math.min(marks.length + 2, 6), {}, renderInline(withoutEnd(title, " #")));
    }
    case "quote": {
      const inside = block.lines.map(line => line.replace(QUOTE, ""));
      return element("blockquote", {}, ...blocksOf(inside, depth + 1).map(each => renderBlock(each, depth + 1)));
    }
    case "list": return renderList(block.lines, depth);
    case "table": return renderTable(block.lines);
    default: return element("p", {}, renderInline(block.lines.map(line => line.trim()).join("\n")));
  }
}

function codeBlock(code, language) {
  const shown = element("code", {}, code);
  const copy = wordButton("Copy", "quiet", () => copyText(code, copy, shown));
  const label = language ? language + " code" : "Code";
  return element(
    "figure", {class: "code"},
    element("figcaption", {}, element("span", {}, language), copy),
    element("pre", {tabindex: "0", role: "region", "aria-label": label}, shown),
  );
}

function renderList(lines, depth) {
  const [, indent, marker] = ITEM.exec(lines[0]);
  const ordered = /\d/.test(marker);
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= indent.length + 1) items.push([line.slice(item[0].length)]);
    else items.at(-1).push(line);
  }
  const list = element(ordered ? "ol" : "ul", ordered ? {start: Number.parseInt(marker)} : {});
  for (const [first, ...others] of items) {
    const written = others.filter(line => line.trim());
    const step = written.reduce((least, line) => Math.min(least, line.search(/\S/)), Infinity);
    const blocks = blocksOf([first, ...others.map(line => line.slice(Math.min(step, line.length)))], depth + 1);
    const tight = blocks[0]?.kind === "paragraph" && !others.some(line => !line.trim());
    const nodes = blocks.map(block => renderBlock(block, depth + 1));
    if (tight) nodes[0].classList.add("tight");
    list.append(element("li", {}, ...nodes));
  }
  return list;
}

function renderTable([head, rule, ...rows]) {
  const sides = cellsOf(rule).map(cell => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left"));
  const row = (line, name) => element("tr", {}, ...cellsOf(line).slice(0, sides.length).map(
    (cell, column) => element(name, {class: sides[column]}, renderInline(cell)),
  ));
  const body = element("tbody", {}, ...rows.map(line => row(line, "td")));
  const table = element("table", {}, element("thead", {}, row(head, "th")), body);
  return element("div", {class: "table", tabindex: "0", role: "region", "aria-label": "Table"}, table);
}
