// Does on the gateway's page for browsers what a person does, and tells what that person sees.
//
// What it is to do, besides what each script is told (see drive.mjs):
//   page         address of the page
//   steps        what to do, each an array of a name in STEPS and its arguments
//   locale       language of the browser, such as "de-AT"; English if left out
//   scheme       "light" or "dark"; light if left out
//   width        of the window, in pixels; 1280 if left out
//   axe          folder of the axe-core package
// It tells told (what the steps that tell something told), complaints (errors in the browser's
// console), addresses (of everything that was loaded).
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { isBlack, readCanvas } from "./canvas.mjs";
import { drive } from "./drive.mjs";

const POLL_MILLISECONDS = 100;

/** Runs a function in the page, whose policy does not let playwright itself do so. */
async function inPage(tools, work, ...given) {
  const expression = `(${work})(...${JSON.stringify(given)})`;
  return evaluate(tools, expression);
}

async function evaluate({ session }, expression) {
  const { result, exceptionDetails } = await session.send("Runtime.evaluate", {
    expression,
    awaitPromise: true,
    returnByValue: true,
  });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? "in the page");
  return result.value;
}

const STEPS = {
  fill: ({ page, limit }, selector, text) => page.locator(selector).fill(text, limit),
  click: ({ page, limit }, selector) => page.locator(selector).click(limit),
  press: ({ page }, key) => page.keyboard.press(key),
  see: async ({ page, limit }, selector) => {
    await page.locator(selector).waitFor({ ...limit, state: "visible" });
  },
  tell: async ({ page, limit }, selector) => {
    const element = page.locator(selector);
    await element.waitFor({ ...limit, state: "visible" });
    return element.textContent(limit);
  },
  value: ({ page, limit }, selector) => page.locator(selector).inputValue(limit),
  screenshot: async ({ page }, path) => {
    await page.screenshot({ path, fullPage: true, animations: "disabled" });
  },
  // Whether a video is placed as spice-html5 does it, which the page's policy does not allow: the
  // browser complains, and the page places it by other means.
  video: async (tools) => {
    const placed = await inPage(tools, async () => {
      const video = document.createElement("video");
      document.getElementById("screen").append(video);
      video.setAttribute("style", "position: absolute; top: 7px;");
      await new Promise((resolve) => setTimeout(resolve, 0));
      const { position, top } = getComputedStyle(video);
      video.remove();
      return `${position} ${top}`;
    });
    const expected = tools.complaints.filter((complaint) => complaint.includes("inline style"));
    for (const complaint of expected) {
      tools.complaints.splice(tools.complaints.indexOf(complaint), 1);
    }
    return placed;
  },
  // Which element has the focus.
  focus: (tools) =>
    inPage(tools, () => {
      const { id, tagName, dataset } = document.activeElement;
      return id || dataset.action || tagName;
    }),
  // Waits until the desktop shows another picture than before, and saves it as RGBA.
  picture: async (tools, path) => {
    let before = null;
    while (Date.now() < tools.deadline) {
      const canvas = await inPage(tools, readCanvas);
      const pixels = canvas && Buffer.from(canvas.base64, "base64");
      const stays = pixels && before && pixels.equals(before);
      if (stays && !isBlack(pixels) && !(tools.shown && pixels.equals(tools.shown))) {
        tools.shown = pixels;
        writeFileSync(path, pixels);
        return { width: canvas.width, height: canvas.height };
      }
      before = pixels;
      await pause(POLL_MILLISECONDS);
    }
    throw new Error("no new picture in time");
  },
  // Saves what a click downloads.
  download: async ({ page, limit }, selector, path) => {
    const [download] = await Promise.all([
      page.waitForEvent("download", limit),
      page.locator(selector).click(limit),
    ]);
    await download.saveAs(path);
    return download.suggestedFilename();
  },
  // What the page leaves behind in the browser.
  traces: async (tools) => ({
    cookies: (await tools.page.context().cookies()).length,
    ...(await inPage(tools, () => ({
      stored: localStorage.length + sessionStorage.length,
      address: location.href,
      history: history.length,
      language: document.documentElement.lang,
    }))),
  }),
  // Rules of accessibility that are broken.
  audit: async (tools) => {
    await evaluate(tools, readFileSync(join(tools.axe, "axe.min.js"), "utf8"));
    return inPage(tools, async () => {
      const { violations } = await axe.run();
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(", ")}`);
    });
  },
};

async function use(job, context) {
  const page = await context.newPage();
  const complaints = [];
  const addresses = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => addresses.push(request.url()));
  const tools = {
    page,
    session: await context.newCDPSession(page),
    complaints,
    limit: { timeout: job.seconds * 1000 },
    deadline: Date.now() + job.seconds * 1000,
    axe: job.axe,
    shown: null,
  };
  await page.goto(job.page, tools.limit);
  const told = [];
  for (const [name, ...given] of job.steps) {
    const answer = await STEPS[name](tools, ...given).catch(async (error) => {
      const seen = await page.locator("body").innerText({ timeout: 1000 }).catch(() => "nothing");
      throw new Error(`${name} ${given}: ${error.message}; the page: ${seen}; ${complaints}`);
    });
    if (answer !== undefined) told.push(answer);
  }
  return { told, complaints, addresses };
}

await drive(use, (job) => ({
  args: ["--disable-background-networking", "--disable-component-update", "--disable-sync"],
  ignoreHTTPSErrors: true,
  acceptDownloads: true,
  colorScheme: job.scheme ?? "light",
  locale: job.locale ?? "en-US",
  viewport: { width: job.width ?? 1280, height: 800 },
}));
