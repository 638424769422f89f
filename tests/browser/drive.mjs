// What the scripts of this folder have in common: headless Chromium, driven by playwright-core.
//
// One JSON object on stdin, so that no secret stands in the process list; of each script:
//   playwright   folder of the playwright-core package
//   chromium     the browser's program
//   profile      empty folder for the browser's profile
//   seconds      time limit
// One JSON object on stdout: what the script tells, or error.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"];

async function run(work, options) {
  const job = JSON.parse(readFileSync(0, "utf8"));
  const { chromium } = createRequire(import.meta.url)(job.playwright);
  const { args = [], ...rest } = options(job);
  const context = await chromium.launchPersistentContext(job.profile, {
    executablePath: job.chromium,
    args: [...FLAGS, ...args],
    timeout: job.seconds * 1000,
    ...rest,
  });
  try {
    return await work(job, context);
  } finally {
    await context.close();
  }
}

/** Lets `work` use a browser that is started with what `options` says, and prints what it tells. */
export async function drive(work, options) {
  const answer = await run(work, options).catch((error) => ({ error: error.message }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  process.exitCode = answer.error ? 1 : 0;
}
