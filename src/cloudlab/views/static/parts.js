// Charts and tables: the kernel draws them; here the points, bars and words that have changed are put in their places.

class Parts {
  constructor(el) {
    this.body = html("div");
    this.ended = html("p", { class: "cl-ended", role: "status" });
    this.frame = html("div", { class: "cl-view" }, this.body, this.ended);
    el.append(this.frame);
  }

  show(picture) {
    this.frame.className = `cl-view ${picture.look}`;
    this.draw(picture.html);
    write(this.ended, picture.ended);
  }

  draw(text) {
    this.body.innerHTML = text;
    this.parts = new Map([...this.body.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
  }

  /** `html`: what there is to see is another thing now, and all of it is drawn anew. */
  change({ parts = {}, html: drawn, ended }) {
    const began = performance.now();
    if (drawn) this.draw(drawn);
    for (const [key, text] of Object.entries(parts)) {
      const part = this.parts.get(key);
      if (part.tagName === "polyline") part.setAttribute("points", text);
      else if (part.tagName === "rect") part.setAttribute("width", text);
      else write(part, text);
    }
    if (ended) write(this.ended, ended);
    this.frame.dataset.workMs = (performance.now() - began).toFixed(2);
  }
}

export default {
  render({ model, el }) {
    return follow(model, new Parts(el));
  },
};
