// Opens the gateway's status page in headless Chromium and tells what it shows.
//
// What it is to do, besides what each script is told (see drive.mjs):
//   page         address of the page
//   scheme       "light" or "dark"
//   scripts      whether the page's scripts run
//   screenshot   file for a picture of the whole page; may be left out
//   width        of the window, in pixels; 1280 if left out
// It tells rows (texts of the table's cells), background, renewed (whether it came again by
// itself), complaints (what the browser's console said).
import { drive } from "./drive.mjs";

async function look(job, context) {
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  const limit = { timeout: job.seconds * 1000 };
  let loads = 0;
  const twice = new Promise((resolve) => page.on("load", () => ++loads === 2 && resolve()));
  await page.goto(job.page, limit);
  // With scripts the page fetches itself; without, the browser loads it again.
  const again = await page.waitForRequest((request) => request.url() === job.page, limit);
  const way = again.resourceType() === "fetch";
  if (job.scripts) await page.locator("body[data-renewed]").waitFor({ ...limit, state: "attached" });
  else await twice;
  const rows = [];
  for (const row of await page.locator("tbody tr").all()) {
    rows.push(await row.locator("th, td").allTextContents());
  }
  if (job.screenshot) await page.screenshot({ path: job.screenshot, fullPage: true });
  const session = await context.newCDPSession(page);
  await session.send("DOM.enable");
  await session.send("CSS.enable");
  const { root } = await session.send("DOM.getDocument");
  const { nodeId } = await session.send("DOM.querySelector", { nodeId: root.nodeId, selector: "body" });
  const { computedStyle } = await session.send("CSS.getComputedStyleForNode", { nodeId });
  const background = computedStyle.find(({ name }) => name === "background-color").value;
  return { rows, background, renewed: way === job.scripts, complaints };
}

await drive(look, (job) => ({
  colorScheme: job.scheme,
  javaScriptEnabled: job.scripts,
  viewport: { width: job.width ?? 1280, height: 800 },
}));
