// Line charts: the kernel draws them; here the points, labels and words that have changed are put in their places.

class Charts {
  constructor(el) {
    this.body = html("div");
    this.ended = html("p", { class: "cl-ended", role: "status" });
    this.frame = html("div", { class: "cl-view cl-meters" }, this.body, this.ended);
    el.append(this.frame);
  }

  show(picture) {
    this.body.innerHTML = picture.html;
    this.parts = new Map([...this.body.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    write(this.ended, picture.ended);
  }

  change({ parts = {}, ended }) {
    const began = performance.now();
    for (const [key, text] of Object.entries(parts)) {
      const part = this.parts.get(key);
      if (part.tagName === "polyline") part.setAttribute("points", text);
      else write(part, text);
    }
    if (ended) write(this.ended, ended);
    this.frame.dataset.workMs = (performance.now() - began).toFixed(2);
  }
}

export default {
  render({ model, el }) {
    return follow(model, new Charts(el));
  },
};
