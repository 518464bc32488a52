// The browser's half of cloudlab.views.terminal: xterm.js in a cell, joined to a guest's serial line.
//
// To the kernel: {kind: "open" | "size", view, columns}, {kind: "keys" | "bytes", text}, {kind: "shown", view, number}, {kind: "close", view};
// from it: {kind: "screen", view, number, replay} (to one view: all that was printed last) and {kind: "output", number, replay}
// (to all), both with the bytes in a buffer. Each is answered by "shown", and more is sent only then.
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import "./terminal.css";

const LIVE = new Set(["starting", "running", "paused"]);
// What a terminal says by itself when a program asks where the cursor is, or what kind it is.
const REPORT = /^\x1b(\[[?>=]?[\d;]*[Rcn]|\]|P)/;
const SETTLED_MS = 150;
const AGAIN_MS = 300;

function theme(element) {
  const style = getComputedStyle(element);
  const named = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  const background = named("--jp-layout-color0", "#ffffff");
  const foreground = named("--jp-content-font-color0", "#000000");
  return {
    background,
    foreground,
    cursor: foreground,
    cursorAccent: background,
    selectionBackground: named("--jp-editor-selected-focused-background", "#9ec5fe"),
  };
}

function font(element) {
  const style = getComputedStyle(element);
  return {
    fontFamily: style.getPropertyValue("--jp-code-font-family").trim() || "monospace",
    fontSize: parseFloat(style.getPropertyValue("--jp-code-font-size")) || 13,
  };
}

// Keys that the browser should have: Ctrl-C copies what is selected (without a selection it goes to the guest), Ctrl-V pastes.
function belongsToBrowser(event, terminal) {
  if (event.type !== "keydown" || !(event.ctrlKey || event.metaKey) || event.altKey) return false;
  const key = event.key.toLowerCase();
  return key === "v" || (key === "c" && (event.shiftKey || terminal.hasSelection()));
}

function copy(event, terminal) {
  if (event.key.toLowerCase() !== "c") return;
  event.preventDefault(); // Ctrl-Shift-C would open the browser's own tools
  if (terminal.hasSelection()) document.execCommand("copy");
}

function makeTerminal(model, box) {
  const terminal = new Terminal({
    ...font(box),
    theme: theme(box),
    rows: model.get("rows"),
    cols: model.get("columns"),
    screenReaderMode: true,
    minimumContrastRatio: 4.5,
    scrollback: 5000,
  });
  terminal.attachCustomKeyEventHandler((event) => {
    if (!belongsToBrowser(event, terminal)) return true;
    copy(event, terminal);
    return false;
  });
  return terminal;
}

function render({ model, el }) {
  const view = crypto.randomUUID?.() ?? String(Math.random());
  const name = model.get("name");
  el.classList.add("cloudlab-terminal");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // Ctrl-B is the guest's, not JupyterLab's
  const box = document.createElement("div");
  box.className = "cloudlab-terminal-screen";
  box.setAttribute("aria-label", `terminal of ${name}`);
  const state = document.createElement("div");
  state.className = "cloudlab-terminal-state";
  state.setAttribute("role", "status");
  el.append(box, state);

  function send(message) {
    if (!closed) model.send({ view, ...message });
  }

  const terminal = makeTerminal(model, box);
  const kernel = model.widget_manager?.kernel;
  const fit = new FitAddon();
  terminal.loadAddon(fit);

  let ready = false; // once this view has its screen
  let replays = 0; // old bytes that are being shown: what they ask has been answered
  let gone = false; // the kernel
  let closed = false; // this view
  let pressed = false;
  let asked = 0;
  let timer = 0;
  let greeting = 0;

  function show(message, buffers) {
    const shown = () => send({ kind: "shown", number: message.number });
    const mine = message.kind === "screen" ? message.view === view : ready;
    if (!mine) {
      if (ready) shown();
      return;
    }
    const bytes = new Uint8Array(buffers[0].buffer, buffers[0].byteOffset, buffers[0].byteLength);
    ready = true;
    replays += message.replay;
    terminal.write(bytes, () => {
      replays -= message.replay;
      shown();
    });
  }

  function type(text, kind = "keys") {
    if (gone || !LIVE.has(model.get("state"))) return;
    if (REPORT.test(text) && (replays || !box.contains(document.activeElement))) return; // one answer is enough
    send({ kind, text });
  }

  function tell() {
    if (gone) return;
    state.textContent = model.get("status");
    el.dataset.state = model.get("state");
    const live = LIVE.has(model.get("state"));
    terminal.options.disableStdin = !live;
    terminal.options.cursorBlink = live;
  }

  function disconnected() {
    if (el.classList.contains("jupyter-widgets-disconnected")) orphaned();
  }

  function orphaned() {
    gone = true;
    el.dataset.state = "gone";
    terminal.options.disableStdin = true;
    state.textContent = `${name}: the kernel has ended, and the guest with it. Run the cells again.`;
  }

  function resize() {
    terminal.resize(model.get("columns"), model.get("rows"));
  }

  // Letters without a key (a table of symbols, dictation): with a screen reader's help xterm.js leaves them aside.
  function inserted(event) {
    if (event.inputType === "insertText" && !event.isComposing && !pressed && event.data) terminal.input(event.data);
  }

  function keep(event) {
    event.stopPropagation(); // from the notebook: Escape is vi's
    pressed = event.type === "keydown" || event.type === "keypress";
  }

  function open() {
    if (terminal.element || !box.clientWidth) return; // not on the page yet
    terminal.open(box);
    terminal.textarea.addEventListener("input", inserted);
    asked = fit.proposeDimensions()?.cols ?? model.get("columns");
    greet();
  }

  // Until the page and the kernel have agreed on a subshell, a message waits for the cell that runs, and a later one may pass it.
  function greet() {
    if (ready || gone) return;
    send({ kind: "open", columns: asked });
    greeting = setTimeout(greet, AGAIN_MS);
  }

  function measure(known) {
    const columns = box.clientWidth && fit.proposeDimensions()?.cols;
    if (!columns || columns === known) return;
    asked = columns;
    send({ kind: "size", columns });
  }

  function settle() {
    open();
    clearTimeout(timer);
    timer = setTimeout(() => measure(asked), SETTLED_MS);
  }

  const focused = () => measure(model.get("columns")); // the view in which one types decides

  terminal.onData((text) => type(text));
  terminal.onBinary((text) => type(text, "bytes"));
  const width = new ResizeObserver(settle);
  const colours = new MutationObserver(() => Object.assign(terminal.options, { theme: theme(box), ...font(box) }));
  for (const kind of ["keydown", "keypress", "keyup"]) el.addEventListener(kind, keep);
  box.addEventListener("focusin", focused);
  model.on("msg:custom", show);
  model.on("change:state change:status", tell);
  model.on("change:rows change:columns", resize);
  model.on("comm_live_update", disconnected);
  kernel?.disposed?.connect(orphaned); // Jupyter tells widgets of a restart, and of a shutdown only those who ask
  tell();
  width.observe(box);
  colours.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light"] });

  return () => {
    clearTimeout(timer);
    clearTimeout(greeting);
    width.disconnect();
    colours.disconnect();
    model.off("msg:custom", show);
    model.off("change:state change:status", tell);
    model.off("change:rows change:columns", resize);
    model.off("comm_live_update", disconnected);
    kernel?.disposed?.disconnect(orphaned);
    send({ kind: "close" });
    closed = true;
    terminal.dispose();
  };
}

export default { render };
