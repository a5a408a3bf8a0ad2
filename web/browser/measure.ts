/** Measure the page: `node measure.ts CHROMIUM PAGE FIELD ROUNDS` prints seconds per field and memory as JSON. */

import { readFileSync } from "node:fs";
import { launch, serve } from "./site.ts";

const [chromium, folder, field, rounds] = process.argv.slice(2);
const { url, server } = await serve(folder);
const browser = await launch(chromium);
const page = await browser.newPage();
page.setDefaultTimeout(300_000);
await page.goto(url);
// Once the service worker is there, the page loads again, with threads.
while (!(await page.evaluate(() => globalThis.crossOriginIsolated).catch(() => false))) await page.waitForTimeout(100);
const facts = page.locator("#facts dt");
await facts.first().waitFor({ state: "attached" });

const seconds: number[] = [];
for (let round = 0; round < Number(rounds); round++) {
    const started = performance.now();
    await page.evaluate(() => document.querySelector("#status")?.replaceChildren()); // of the round before
    await page.setInputFiles("#file", field);
    await page.locator("#status").filter({ hasText: "candidates." }).waitFor();
    seconds.push((performance.now() - started) / 1000);
}

const session = await browser.newBrowserCDPSession();
const { processInfo } = await session.send("SystemInfo.getProcessInfo");
const peak = (id: number) => Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1]);
const renderers = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => peak(id));
const megabytes = Math.max(...renderers) / 1024;
const threads = /(\d+) thread/.exec((await page.locator("#facts").textContent()) ?? "")?.[1];
console.log(JSON.stringify({ seconds, megabytes, threads: Number(threads) }));
await browser.close();
server.close();
