// Opens spice-html5 in headless Chromium and hands back what its canvas shows.
//
// What it is to do, besides what each script is told (see drive.mjs):
//   page         address of spice_auto.html
//   query        what the page finds as its query: host, port, path, password
//   expected     file with the RGBA pixels to wait for, or null: any picture that stays
//   pixels       file that receives the RGBA pixels of the canvas
// It tells width, height, sockets, received, sent (bytes).
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

import { isBlack, readCanvas } from "./canvas.mjs";
import { drive } from "./drive.mjs";

const FLAGS = [
  "--disable-quic",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--ignore-certificate-errors",
];
const POLL_MILLISECONDS = 100;

/** Polls the canvas until it shows what is waited for; at the time limit, what it shows then. */
async function awaitPicture(page, job, deadline) {
  const expected = job.expected ? readFileSync(job.expected) : null;
  let last = null;
  while (Date.now() < deadline && !page.isClosed()) {
    const canvas = await page.evaluate(readCanvas);
    if (canvas) {
      const pixels = Buffer.from(canvas.base64, "base64");
      const stays = last !== null && pixels.equals(last.pixels) && !isBlack(pixels);
      last = { width: canvas.width, height: canvas.height, pixels };
      if (expected ? pixels.equals(expected) : stays) return last;
    }
    await pause(POLL_MILLISECONDS);
  }
  return last;
}

async function show(job, context) {
  const page = await context.newPage();
  const traffic = { sockets: 0, received: 0, sent: 0 };
  const said = [];
  page.on("websocket", (socket) => {
    traffic.sockets += 1;
    socket.on("framereceived", ({ payload }) => (traffic.received += payload.length));
    socket.on("framesent", ({ payload }) => (traffic.sent += payload.length));
    socket.on("socketerror", (error) => said.push(`WebSocket: ${error}`));
  });
  page.on("pageerror", (error) => said.push(error.message));
  // A refused password makes the page ask for another one, again and again.
  const refused = new Promise((_, reject) => {
    page.once("dialog", (dialog) => reject(new Error(`the page asks: ${dialog.message()}`)));
  });
  // The page reads ticket and password from its own address: put there before its scripts run,
  // they never travel in a request.
  await page.addInitScript((query) => {
    history.replaceState(null, "", `${location.pathname}?${query}`);
  }, new URLSearchParams(job.query).toString());
  const deadline = Date.now() + job.seconds * 1000;
  const response = await page.goto(job.page, { timeout: job.seconds * 1000 });
  if (!response.ok()) throw new Error(`the page was answered with ${response.status()}`);
  const picture = await Promise.race([awaitPicture(page, job, deadline), refused]);
  if (!picture) {
    throw new Error(["no canvas in time", `${traffic.sockets} WebSockets`, ...said].join("; "));
  }
  writeFileSync(job.pixels, picture.pixels);
  return { width: picture.width, height: picture.height, ...traffic };
}

await drive(show, () => ({ args: FLAGS, ignoreHTTPSErrors: true }));
