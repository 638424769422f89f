// Shows a desktop with spice-html5.

import { SpiceMainConn, sendCtrlAltDel } from "./spice-html5/main.js";
import { texts } from "./texts.js";

/** Pause after the last change of the window's size before the desktop hears of it, in ms. */
const SETTLED = 250;
/** Longest wait for the first picture, in ms. */
const LONGEST_OPENING = 60 * 1000;
/** X servers want widths and heights that are multiples of this. */
const STEP = 8;

/** What each Close code of the gateway means for the person at the screen. */
const ENDS = new Map([
  [1000, "hostEnded"],
  [1001, "gatewayEnded"],
  [1011, "hostLost"],
]);

keepTicketsOutOfTheConsole();

/**
 * Opens the desktop in the manager's answer inside of `screen`, which fills `stage`.
 *
 * Calls `shown` when there is a picture, and `ended` once, with the reason as a text.
 */
export function openDesktop(desktop, { stage, screen, shown, ended }) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  // The ticket is for this gateway, whose name for others may not be the one in the address.
  const token = encodeURIComponent(desktop.spice_port);
  let isShown = false;
  let isOver = false;
  let problem;
  const watched = new WeakSet();

  const connection = new SpiceMainConn({
    uri: `${scheme}//${location.host}/?ver=2&token=${token}`,
    password: desktop.spice_password ?? "",
    screen_id: screen.id,
    onerror: (error) => {
      problem ??= describe(error);
      // Behind the Close frame, which says more, if there is one.
      setTimeout(() => end(problem ?? texts.lost), 0);
    },
    onagent: fit,
  });
  watch(connection);

  // spice-html5 does not tell when another channel than the main one has ended.
  const process = connection.process_channel_message;
  connection.process_channel_message = function (message) {
    const result = process.call(this, message);
    for (const channel of [this.display, this.inputs]) if (channel) watch(channel);
    return result;
  };

  function watch(channel) {
    if (watched.has(channel.ws)) return;
    watched.add(channel.ws);
    channel.ws.addEventListener("close", ({ code }) => {
      end(problem ?? texts[ENDS.get(code)] ?? texts.lost);
    });
  }

  const canvases = new MutationObserver(() => {
    for (const canvas of screen.querySelectorAll("canvas:not([role])")) {
      canvas.setAttribute("role", "application");
      canvas.setAttribute("aria-label", texts.desktop);
      canvas.tabIndex = 0;
      // The desktop has changed its size, and what had the focus is gone.
      if (document.activeElement === document.body) canvas.focus();
      clearTimeout(opening);
      if (!isShown) shown();
      isShown = true;
    }
    // Attributes with styles are not allowed on this page, but scripts may set the same styles.
    for (const video of screen.querySelectorAll("video")) {
      if (video.style.length === 0) video.style.cssText = video.getAttribute("style") ?? "";
    }
  });
  canvases.observe(screen, { childList: true, subtree: true, attributeFilter: ["style"] });

  const opening = setTimeout(() => end(problem ?? texts.hostLost), LONGEST_OPENING);

  let timer;
  const sizes = new ResizeObserver(() => {
    clearTimeout(timer);
    timer = setTimeout(fit, SETTLED);
  });
  sizes.observe(stage);

  /** Asks the desktop for the size that there is room for; only its agent can change it. */
  function fit() {
    const [width, height] = [stage.clientWidth, stage.clientHeight].map((n) => n - (n % STEP));
    if (isOver || !connection.agent_connected || width === 0 || height === 0) return;
    connection.resize_window(0, width, height, 32, 0, 0);
  }

  function end(reason) {
    if (isOver) return;
    isOver = true;
    canvases.disconnect();
    sizes.disconnect();
    clearTimeout(timer);
    clearTimeout(opening);
    try {
      connection.stop();
    } catch (error) {
      console.warn(`spice-html5: ${error.message}`);
    }
    screen.replaceChildren();
    screen.removeAttribute("style");
    ended(reason);
  }

  return {
    close: () => end(texts.disconnected),
    sendCtrlAltDel: () => sendCtrlAltDel(connection),
    focus: () => screen.querySelector("canvas")?.focus(),
  };
}

/** What an error of spice-html5 means for the person at the screen. */
function describe(error) {
  switch (error.message) {
    case "Permission denied.":
    case "Bad password.":
      return texts.wrongPassword;
    case "Connection refused.":
      return texts.refused;
    case "Connection timed out.":
      return texts.hostLost;
    default:
      return undefined;
  }
}

/** spice-html5 tells the console the addresses of its WebSockets. */
function keepTicketsOutOfTheConsole() {
  const channel = Object.getPrototypeOf(SpiceMainConn.prototype);
  for (const name of ["log_info", "log_warn", "log_err"]) {
    channel[name] = (...words) => {
      console.info(`spice-html5: ${words.join(" ").replace(/token=[^&\s]*/g, "token=...")}`);
    };
  }
}
