"use strict";
// The OpenAI API of the server that the page came from, and the key if it asks for one.

/** What went wrong, and what a reader can do about it. */
class ServerError extends Error {
  constructor(message, advice) {
    super(message);
    this.advice = advice;
  }
}

const ADVICE = {
  400: "Change the message or the settings, then try again.",
  404: "Reload the page: the server may have another model now.",
  408: "Try again, or ask for fewer new tokens in the settings.",
  413: "Shorten the message or begin a new conversation.",
  504: "Try again, or ask for fewer new tokens in the settings.",
};
const UNREACHABLE = ["The server cannot be reached.", "See whether lilliput serve is still running, then try again."];
const NO_KEY = ["The server wants a key.", "Try again and give it one."];
const CUT_OFF = ["The connection was lost before the end.", "What was written so far is kept."];

/** The model of the server: id, chat, context, parameters, state_bytes and states_grow. */
async function readModel() {
  return (await (await request("v1/models")).json()).data[0];
}

/** Pieces of a text as they are written: {text, tokens} one or more times, then {usage, finish}. */
async function* complete(path, body, signal) {
  const asked = {...body, stream: true, stream_options: {include_usage: true}};
  const response = await request(path, {method: "POST", body: JSON.stringify(asked), signal});
  try {
    for await (const event of serverSentEvents(response)) {
      const chunk = JSON.parse(event);
      if (chunk.error) throw new ServerError(sentence(chunk.error.message), "Try again.");
      const choice = chunk.choices[0];
      yield {
        text: choice?.delta?.content ?? choice?.text ?? "",
        tokens: tokensOf(choice?.logprobs),
        finish: choice?.finish_reason ?? null,
        usage: chunk.usage ?? null,
      };
    }
  } catch (error) {
    if (error instanceof ServerError || error.name === "AbortError") throw error;
    throw new ServerError(...CUT_OFF);
  }
}

/** A response of the server; asks for a key as long as it wants another one. */
async function request(path, options = {}) {
  for (;;) {
    const key = tabOnly.read("key");
    const headers = {"Content-Type": "application/json", ...(key && {Authorization: "Bearer " + key})};
    let response;
    try {
      response = await fetch(path, {...options, headers});
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(...UNREACHABLE);
    }
    if (response.ok) return response;
    if (response.status !== 401) throw await refusal(response);
    if (!(await askForKey(key !== null))) throw new ServerError(...NO_KEY);
  }
}

/** What the server says about a request that it refuses, with what to do. */
async function refusal(response) {
  let said = "";
  try {
    said = (await response.json()).error.message;
  } catch {
    said = "The server answered with status " + response.status + ".";
  }
  const seconds = Number(response.headers.get("Retry-After"));
  const later = seconds > 0 ? `Try again in ${seconds} second${seconds === 1 ? "" : "s"}.` : "Try again in a moment.";
  return new ServerError(sentence(said), ADVICE[response.status] ?? later);
}

function sentence(text) {
  const said = String(text).trim() || "The server said nothing about it";
  return said[0].toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");
}

/** Show the dialog for the key; false if it was closed without one. */
function askForKey(refused) {
  const dialog = document.getElementById("key-dialog"), field = document.getElementById("key");
  document.getElementById("key-refused").hidden = !refused;
  field.value = "";
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return new Promise(settle => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" && field.value.trim();
      if (given) tabOnly.write("key", given);
      field.value = "";
      settle(Boolean(given));
    }, {once: true});
  });
}

/** Tokens with their probabilities, from either form of the API: {token, bytes, logprob, likeliest: [...]}. */
function tokensOf(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map(({top_logprobs, ...token}) => ({...token, likeliest: top_logprobs ?? []}));
  }
  return (logprobs.tokens ?? []).map((token, index) => {
    const likeliest = Object.entries(logprobs.top_logprobs?.[index] ?? {});
    const others = likeliest.map(([other, logprob]) => ({token: other, logprob}));
    return {token, logprob: logprobs.token_logprobs[index], likeliest: others};
  });
}
