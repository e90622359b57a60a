"use strict";
// What a browser remembers of the page: settings in localStorage, and in sessionStorage, which ends with the tab, the
// key, the conversation and what is being typed. A browser that stores nothing (private windows, full disks) loses
// nothing but that.

class Store {
  constructor(open) {
    try {
      this.storage = open();
    } catch {
      this.storage = null;
    }
  }

  /** The value of a name, or null where nothing readable is stored. */
  read(name) {
    try {
      return JSON.parse(this.storage?.getItem("lilliput." + name) ?? "null");
    } catch {
      return null;
    }
  }

  write(name, value) {
    try {
      if (value === null) this.storage?.removeItem("lilliput." + name);
      else this.storage?.setItem("lilliput." + name, JSON.stringify(value));
    } catch {
      // Full: the page works without.
    }
  }
}

const lasting = new Store(() => localStorage);
const tabOnly = new Store(() => sessionStorage);
