"use strict";
// The page from its parts, once the server has said which model it has.

const byId = id => document.getElementById(id);

function facts(model) {
  const told = [];
  if (model.parameters) told.push(parametersText(model.parameters) + " parameters");
  if (model.context) told.push("context " + countText(model.context) + " tokens");
  const grows = model.states_grow ? "up to " : "always ";
  if (model.state_bytes) told.push("state " + grows + bytesText(model.state_bytes));
  return told.join(" · ");
}

function parametersText(count) {
  const power = count >= 1e9 ? 3 : count >= 1e6 ? 2 : count >= 1e3 ? 1 : 0;
  return (count / 1000 ** power).toPrecision(3) + ["", " K", " M", " B"][power];
}

/** Hand a reader a file that is made here. */
function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], {type: "application/jsonl"}));
  element("a", {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Switch the view of probabilities on or off, and remember it. */
function showTokens(on, view) {
  document.body.classList.toggle("with-tokens", on);
  byId("tokens-button").setAttribute("aria-pressed", String(on));
  lasting.write("tokens", on || null);
  view?.show();
}

function begin(model, settings) {
  const meter = new Meter(), panel = new DistributionPanel(), follow = new Follow();
  meter.model = model;
  document.title = model.id + " · Lilliput";
  byId("model").textContent = model.id;
  byId("welcome-model").textContent = model.id;
  for (const line of document.querySelectorAll(".facts")) line.textContent = facts(model);
  document.body.classList.add(model.chat ? "chat" : "base");
  const writer = new Writer(meter, follow);
  const view = new (model.chat ? Chat : Continuation)(model, settings, writer, panel);
  byId("composer").addEventListener("submit", event => {
    event.preventDefault();
    view.send();
  });
  byId("new-button").addEventListener("click", () => {
    meter.clear();
    view.clear();
  });
  byId("download-button").addEventListener("click", () => {
    download((model.chat ? "conversation" : "text") + ".jsonl", JSON.stringify(view.row()) + "\n");
  });
  byId("tokens-button").addEventListener("click", () => {
    showTokens(!document.body.classList.contains("with-tokens"), view);
    follow.keep();
  });
  showTokens(Boolean(lasting.read("tokens")), view);
  if (matchMedia("(pointer: fine)").matches) view.field.focus();
  follow.jump();
}

async function start(settings) {
  const failed = byId("failed");
  failed.hidden = true;
  try {
    begin(await readModel(), settings);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    byId("failed-message").textContent = error.message;
    byId("failed-advice").textContent = " " + error.advice;
    failed.hidden = false;
  }
}

const theme = new Theme(), settings = new Settings();
byId("failed-button").addEventListener("click", () => start(settings));
start(settings);
