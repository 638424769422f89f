// The page: from the login to the desktop, and back when the desktop ends.

import { Refusal, askForDesktop, isKiosk } from "./manager.js";
import { texts, translate } from "./texts.js";
import { saveViewerFile } from "./viewer.js";

const find = (selector) => document.querySelector(selector);
const card = find("#card");
const form = find("form");
const choices = find("#choices");
const screen = find("#screen");

/** What is under way, so that it can be broken off. */
let attempt = new AbortController();
/** The desktop that is shown: spice-html5's, the manager's answer, and its name. */
let open = null;
/** What begins everything anew where no form does: how users log in is unknown, or none do. */
let again = begin;

/** Shows one view, and gives the focus to what is to be done or read there. */
function show(name, focus) {
  for (const view of document.querySelectorAll("[data-view]")) {
    view.hidden = view.dataset.view !== name;
  }
  card.hidden = name === "desktop";
  focus?.focus();
}

/** Says something above whatever the card shows; both empty: nothing. */
function say({ notice = "", problem = "" } = {}) {
  for (const [id, text] of [["#notice", notice], ["#problem", problem]]) {
    const element = find(id);
    // Shown first: what is not shown is not read out.
    element.hidden = text === "";
    element.textContent = text;
  }
}

function showWait(text) {
  say();
  const progress = find("#progress");
  show("wait", progress);
  progress.textContent = text;
}

/** The beginning, and what is said there. */
function showLogin(said) {
  find("#password").value = "";
  if (again) {
    show("retry", find("[data-action=again]"));
  } else {
    const { username, password } = form.elements;
    show("login", username.value === "" ? username : password);
  }
  say(said);
}

/** Does the next step, unless another one is begun meanwhile. */
async function step(work) {
  attempt.abort();
  const own = (attempt = new AbortController());
  try {
    await work(own.signal);
  } catch (error) {
    if (own.signal.aborted) return;
    if (!(error instanceof Refusal)) console.error(error);
    showLogin({ problem: error instanceof Refusal ? error.message : texts.unknownAnswer });
  }
}

async function begin(signal) {
  showWait(texts.asking);
  if (await isKiosk(signal)) {
    again = (signal) => connect({ username: "", password: "", desktop: "" }, "", signal);
    await again(signal);
  } else {
    again = null;
    showLogin();
  }
}

async function connect(login, name, signal) {
  showWait(texts.asking);
  const pending = () => {
    find("#progress").textContent = texts.pending;
  };
  const answer = await askForDesktop(login, pending, signal);
  find("#password").value = "";
  if (answer.choices) showChoices(answer.choices, login);
  else await showDesktop(answer.desktop, name, signal);
}

function showChoices(found, login) {
  const items = found.map(([key, name]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => {
      choices.replaceChildren();
      step((signal) => connect({ ...login, desktop: key }, name, signal));
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  choices.replaceChildren(...items);
  say();
  show("choice", find("#choose"));
}

async function showDesktop(answer, name, signal) {
  showWait(texts.connecting);
  const client = await import("./desktop.js").catch(() => {
    throw new Refusal(texts.noClient);
  });
  signal.throwIfAborted();
  const title = name || texts.title;
  const desktop = client.openDesktop(answer, {
    stage: find("#stage"),
    screen,
    shown: () => {
      document.title = title;
      // Hidden elements cannot have the focus.
      show("desktop");
      desktop.focus();
    },
    ended: (reason) => {
      signal.removeEventListener("abort", desktop.close);
      open = null;
      document.title = texts.title;
      if (document.fullscreenElement) document.exitFullscreen();
      if (!signal.aborted) showLogin({ notice: reason });
    },
  });
  signal.addEventListener("abort", desktop.close);
  open = { desktop, answer, title };
}

async function toggleFullScreen() {
  if (document.fullscreenElement) {
    await document.exitFullscreen();
    return;
  }
  await find("#desktop").requestFullscreen();
  // Keys such as Alt+Tab are for the desktop then, where browsers let pages have them.
  await navigator.keyboard?.lock?.();
}

const ACTIONS = {
  back: () => {
    choices.replaceChildren();
    showLogin();
  },
  cancel: () => {
    attempt.abort();
    showLogin();
  },
  again: () => step((signal) => again(signal)),
  "full-screen": () => {
    toggleFullScreen().catch((error) => console.warn(error.message));
    open?.desktop.focus();
  },
  "ctrl-alt-del": () => {
    open?.desktop.sendCtrlAltDel();
    open?.desktop.focus();
  },
  viewer: () => saveViewerFile(open.answer, open.title),
  disconnect: () => open?.desktop.close(),
};

for (const button of document.querySelectorAll("[data-action]")) {
  button.addEventListener("click", ACTIONS[button.dataset.action]);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { username, password } = form.elements;
  const login = { username: username.value, password: password.value, desktop: "" };
  step((signal) => connect(login, "", signal));
});

// The desktop takes all keys; these two are the page's, as they are virt-viewer's own.
document.addEventListener(
  "keydown",
  (event) => {
    if (!open || !event.shiftKey || (event.key !== "F11" && event.key !== "F12")) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "F11") ACTIONS["full-screen"]();
    else if (document.fullscreenElement) document.exitFullscreen().then(focusBar);
    else focusBar();
  },
  { capture: true },
);

function focusBar() {
  find("#bar button").focus();
}

translate();
step(begin);
