"use strict";
// The page follows a growing answer while its end is in view, and stays where a reader scrolled to otherwise.

const NEAR = 80; // pixels

class Follow {
  constructor() {
    this.button = document.getElementById("newest");
    this.following = true;
    addEventListener("scroll", () => this.look(), {passive: true});
    addEventListener("resize", () => this.keep());
    this.button.addEventListener("click", () => this.jump());
  }

  look() {
    const {scrollHeight, clientHeight, scrollTop} = document.scrollingElement;
    this.following = scrollHeight - clientHeight - scrollTop < NEAR;
    this.button.hidden = this.following;
  }

  /** To be called whenever the page has grown. */
  keep() {
    if (this.following) scrollTo(0, document.scrollingElement.scrollHeight);
    else this.look();
  }

  jump() {
    this.following = true;
    this.keep();
  }
}
