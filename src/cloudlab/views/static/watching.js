// What the views share. This text stands before each view's own: there is no build step, and nothing to import.

/** Make an HTML element; `attributes` are set as written, children may be text. */
function html(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  set(made, attributes);
  made.append(...children);
  return made;
}

/** Make an SVG element. */
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(made, attributes);
  made.append(...children);
  return made;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

/** Change a text only if it differs: the browser lays out anew what is written, even when it is the same. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Keep a view up to date: `view.show(picture)` draws all, `view.change(message)` what has changed.
 * Returns what to do when the view goes. See `Watching` in widget.py for the messages.
 */
function follow(model, view) {
  let serial = model.get("picture").serial;
  const here = () => model.send({ here: serial });
  const hear = (message) => {
    if (message.who) here();
    else if (message.picture) {
      if (message.picture.serial === serial) return;
      serial = message.picture.serial;
      view.show(message.picture);
    } else if (message.serial === serial + 1) {
      serial = message.serial;
      view.change(message);
    } else if (message.serial > serial) here(); // one got lost: the kernel sends all
  };
  view.show(model.get("picture"));
  model.on("msg:custom", hear);
  here();
  return () => {
    model.off("msg:custom", hear);
    model.send({ gone: true });
  };
}
