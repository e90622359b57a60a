"use strict";
// One request at a time, from the first token to the end of the answer, a stop or an error.

const ENDS = {
  length: "The limit of new tokens or of the context was reached.",
  timeout: "The time that the server gives a request was up.",
};

class Writer {
  constructor(meter, follow) {
    this.meter = meter;
    this.follow = follow;
    this.controller = null;
    this.announcements = document.getElementById("announcements");
    this.stopButton = document.getElementById("stop");
    this.stopButton.addEventListener("click", () => this.stop());
    document.addEventListener("keydown", event => {
      if (event.key === "Escape") this.stop();
    });
  }

  get writing() {
    return this.controller !== null;
  }

  stop() {
    this.controller?.abort();
  }

  /** Write the answer to a request into a turn, which a view shows. */
  async write(turn, view, path, body) {
    this.controller = new AbortController();
    Object.assign(turn, {text: "", tokens: [], note: "", error: null});
    this.show(turn, view, true);
    this.follow.jump();
    this.meter.begin();
    let usage = null;
    try {
      const asked = {...body, logprobs: "messages" in body ? true : ALTERNATIVES + 1};
      if ("messages" in body) asked.top_logprobs = ALTERNATIVES + 1;
      for await (const piece of complete(path, asked, this.controller.signal)) {
        turn.text += piece.text;
        turn.tokens.push(...piece.tokens);
        this.meter.count(piece.tokens.length || (piece.text ? 1 : 0));
        usage = piece.usage ?? usage;
        turn.note = ENDS[piece.finish] ?? turn.note;
        view.changed(() => this.follow.keep());
      }
    } catch (error) {
      if (error instanceof ServerError) turn.error = {message: error.message, advice: error.advice};
      else if (error.name === "AbortError") turn.note = "Stopped.";
      else throw error;
    } finally {
      this.controller = null;
      this.meter.end(usage);
      this.show(turn, view, false);
      this.follow.keep();
    }
    if (!turn.error) this.announcements.textContent = turn.text + " " + turn.note;
  }

  show(turn, view, writing) {
    const held = document.activeElement === this.stopButton;
    document.body.classList.toggle("writing", writing);
    view.writing = writing;
    view.update();
    if (held) document.getElementById(document.getElementById("message").hidden ? "manuscript" : "message").focus();
  }
}
