"use strict";
// Server-sent events over fetch: EventSource can send neither a body nor a key.

const DONE = "[DONE]";
const LINE_END = /\r\n|\n|\r(?!$)/; // a carriage return at the end may be one half of an end

/** The data of each event up to `[DONE]`; a TypeError, as of a lost connection, if the stream ends before. */
async function* serverSentEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = ""; // a line that has not ended
  let data = []; // of an event that has not ended
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) throw new TypeError("the stream ended early");
      const lines = (rest + value).split(LINE_END);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        if (line !== "" || !data.length) continue;
        const event = data.join("\n");
        data = [];
        if (event === DONE) return;
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the reader may have failed already
  }
}
