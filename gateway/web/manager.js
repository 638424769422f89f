// What clients ask the manager: how users log in, and for a desktop. Every client uses the same
// two requests.

import { texts } from "./texts.js";

/** Pause before a desktop that is being started is asked for again, in milliseconds. */
const PAUSE = 3600;
/** Longest wait for a desktop that is being started, in milliseconds. */
const LONGEST_START = 10 * 60 * 1000;
/** Longest wait for one answer, in milliseconds: twice the gateway's own for the manager. */
const LONGEST_ANSWER = 60 * 1000;

/** An error with a message for the person at the screen. */
export class Refusal extends Error {}

/** Whether users are not asked for a name and a password. */
export async function isKiosk(signal) {
  const answer = await post("/vdi/authmode", { hwaddress: "" }, signal);
  if (answer.status !== "OK") throw refusal(answer);
  return answer.auth_mode === "kiosk";
}

/**
 * Asks for a desktop with `login` (username, password, desktop: a key or "") until it runs.
 *
 * Gives `{ desktop }`, the manager's answer, or `{ choices }`, pairs of key and name. Calls
 * `pending` when the desktop has to be started first. Throws a Refusal, or the reason of `signal`.
 */
export async function askForDesktop(login, pending, signal) {
  const deadline = performance.now() + LONGEST_START;
  do {
    const answer = await post("/vdi/desktop", { hwaddress: "", ...login }, signal);
    switch (answer.status) {
      case "OK":
        return { desktop: answer };
      case "SelectDesktop":
        return { choices: choices(answer.message) };
      case "Pending":
        pending();
        await pause(PAUSE, signal);
        break;
      default:
        throw refusal(answer);
    }
  } while (performance.now() < deadline);
  throw new Refusal(texts.tookTooLong);
}

/** The object in the text of such an answer, as pairs. */
function choices(text) {
  let found;
  try {
    found = Object.entries(JSON.parse(text));
  } catch {
    throw new Refusal(texts.unknownAnswer);
  }
  if (found.length === 0) throw new Refusal(texts.noDesktops);
  return found.map(([key, name]) => [key, String(name)]);
}

function refusal(answer) {
  const message = answer.status === "Error" && answer.message;
  return new Refusal(message ? String(message) : texts.unknownAnswer);
}

async function post(path, body, signal) {
  const limited = new AbortController();
  const stop = () => limited.abort(signal.reason);
  signal.addEventListener("abort", stop);
  const timer = setTimeout(() => limited.abort(), LONGEST_ANSWER);
  let answer;
  try {
    signal.throwIfAborted();
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      cache: "no-store",
      redirect: "error",
      signal: limited.signal,
    });
    // Errors have the same form as answers, whatever their status is.
    answer = await response.json();
  } catch {
    signal.throwIfAborted();
    throw new Refusal(texts.unreachable);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
  if (answer === null || typeof answer !== "object") throw new Refusal(texts.unknownAnswer);
  return answer;
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}
