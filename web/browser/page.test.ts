/** The page in a real Chromium, beside what `mitoscope detect` finds. tests/web/test_web.py prepares and runs this. */

import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, join } from "node:path";
import axe from "axe-core";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { launch, serve } from "./site";

/** What the Python side prepares. */
interface Prepared {
    readonly chromium: string;
    readonly page: string;
    /** Fields as PNG that give their pixel size, and one that gives none. */
    readonly fields: readonly string[];
    readonly unsized: string;
    /** A field as JPEG, which gives no pixel size. */
    readonly jpeg: string;
    /** Side of the field without a pixel size, px. */
    readonly side: number;
    readonly micronsPerPixel: number;
    /** CSV of `mitoscope detect`, by the name of the field. */
    readonly detected: Readonly<Record<string, string>>;
    readonly out: string;
}

const prepared: Prepared = JSON.parse(readFileSync(process.env.MITOSCOPE_PREPARED ?? "", "utf8"));
const { fields, out } = prepared;

type Row = readonly [row: number, col: number, probability: number];

let browser: Browser;
let context: BrowserContext;
let page: Page;
let site: Awaited<ReturnType<typeof serve>>;
const requested = new Set<string>();
const problems: string[] = [];

beforeAll(async () => {
    site = await serve(prepared.page);
    browser = await launch(prepared.chromium);
    context = await browser.newContext({ viewport: { width: 1280, height: 800 }, acceptDownloads: true });
    context.setDefaultTimeout(10_000);
    page = await newPage(context);
});

afterAll(async () => {
    await browser?.close();
    site?.server.close();
});

/** Open the page, and wait until it is kept for use offline and has its threads. */
async function newPage(within: BrowserContext): Promise<Page> {
    const opened = await within.newPage();
    opened.on("request", (request) => requested.add(new URL(request.url()).origin));
    opened.on("dialog", (dialog) => dialog.accept()); // corrections that are not exported may go
    opened.on("pageerror", (error) => problems.push(String(error)));
    opened.on("console", (message) => {
        const isOffline = message.text().includes("ERR_INTERNET_DISCONNECTED"); // Chromium looks for a new service worker
        if (message.type() === "error" && !isOffline) problems.push(message.text());
    });
    await opened.goto(site.url);
    await until(() => opened.evaluate(() => globalThis.crossOriginIsolated));
    await ready(opened);
    return opened;
}

/** Wait until something is so; Playwright's own waiting needs `eval`, which the page does not allow. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
    // While the page loads again, nothing can be asked.
    await vi.waitUntil(() => isSo().catch(() => false), { timeout: 15_000, interval: 50 });
}

async function ready(opened: Page): Promise<void> {
    await until(async () => (await opened.locator("#facts").locator("dt").count()) > 0);
}

async function open(opened: Page, file: string): Promise<void> {
    await opened.setInputFiles("#file", file);
    const name = basename(file);
    await until(async () => {
        const said = (await opened.locator("#status").textContent()) ?? "";
        return said.startsWith(`${name}: `) || said.startsWith(`${name} is open`);
    });
}

const text = (id: string) => page.locator(id).textContent();
const count = async () => Number(await text("#count"));

async function save(button: string): Promise<string> {
    const waiting = page.waitForEvent("download");
    await page.locator(button).click();
    const download = await waiting;
    const path = join(out, download.suggestedFilename());
    await download.saveAs(path);
    return path;
}

function rows(csv: string): Row[] {
    const lines = readFileSync(csv, "utf8").trim().split("\n").slice(1);
    return lines.map((line) => line.split(",").slice(0, 3).map(Number) as unknown as Row);
}

describe("in Chromium", () => {
    test("finds what `mitoscope detect` finds", async () => {
        let total = 0;
        for (const field of fields) {
            await open(page, field);
            const expected = rows(prepared.detected[basename(field)]);
            expect(await count(), field).toBe(expected.length);
            const found = expected.length ? rows(await save("#csv")) : [];
            found.forEach(([row, col, probability], index) => {
                expect(Math.abs(row - expected[index][0])).toBeLessThan(0.02);
                expect(Math.abs(col - expected[index][1])).toBeLessThan(0.02);
                expect(Math.abs(probability - expected[index][2]), `${field}, ${index}`).toBeLessThan(1e-3);
            });
            total += found.length;
        }
        expect(total).toBeGreaterThan(5);
    });

    test("rejects several dropped files", async () => {
        await page.evaluate(() => {
            const dataTransfer = new DataTransfer();
            for (const name of ["one.png", "two.png"]) dataTransfer.items.add(new File(["x"], name));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer }));
        });
        expect(await text("#status")).toBe("2 files: the page opens one field at a time.");
        expect(await text("#name")).toBe(basename(fields[fields.length - 1])); // stays open
    });

    test("shows the mitoses, and answers the slider at once", async () => {
        await open(page, fields[0]);
        const before = await count();
        await page.screenshot({ path: join(out, "desktop.png") });
        const area = Number((await text("#status"))?.match(/([\d.]+) mm²/)?.[1]);
        expect(Number(await text("#density"))).toBeCloseTo(before / area, 0);
        await page.locator("#threshold").fill("0");
        expect(await count()).toBeGreaterThan(before);
        await page.locator("#threshold").fill("1");
        expect(await count()).toBe(0);
        await page.locator("#reset").click();
        expect(await count()).toBe(before);
        expect(await page.locator("#marks li").count()).toBe(before);
    });

    test("corrects by button, tap and key, with undo", async () => {
        await open(page, fields[0]);
        const before = await count();
        await page.locator("#marks li").nth(0).getByRole("button", { name: "Reject", exact: true }).click();
        await page.locator("#marks li").nth(1).getByRole("button", { name: "Accept", exact: true }).click();
        expect(await count()).toBe(before - 1);
        await page.locator("#add").click();
        const box = await page.locator("#picture").boundingBox();
        if (!box) throw new Error("no picture");
        const side = Math.min(box.width, box.height);
        const corner = { x: box.width / 2 - side / 2 + 4, y: box.height / 2 - side / 2 + 4 };
        await page.locator("#picture").click({ position: corner });
        await page.locator("#add").click();
        expect(await count()).toBe(before);
        await page.keyboard.press("Control+z");
        expect(await count()).toBe(before - 1);
        await page.keyboard.press("Control+y");
        expect(await count()).toBe(before);
        await page.locator("#picture").focus();
        await page.keyboard.press("n");
        await page.keyboard.press("n");
        await page.keyboard.press("n"); // the first is rejected, the second accepted
        await page.keyboard.press("r");
        const shown = await count();
        expect(shown).toBe(before - 1);
        expect(await page.locator("#marks [data-state=rejected]").count()).toBe(2);

        // A tap selects, the next ones accept and reject; letters act only where the marks are.
        await page.keyboard.press("p");
        const middle = { x: box.width / 2, y: box.height / 2 };
        const state = () =>
            page.locator("#marks li", { has: page.locator("[aria-current]") }).getAttribute("data-state");
        expect(await state()).toBe("accepted");
        await page.locator("#picture").click({ position: middle });
        expect(await state()).toBe("rejected");
        await page.keyboard.press("a");
        expect(await state()).toBe("accepted");
        await page.locator("#about").focus();
        await page.keyboard.press("r");
        expect(await state()).toBe("accepted");

        // The focus stays on a button whose mark changes.
        const button = page.locator("#marks li").nth(2).getByRole("button", { name: "Accept", exact: true });
        await button.focus();
        await page.keyboard.press("Enter");
        expect(await button.evaluate((element) => element === document.activeElement)).toBe(true);
        expect(await button.getAttribute("aria-pressed")).toBe("true");
        await save("#csv");
        await save("#geojson"); // which the Python side imports
        writeFileSync(join(out, "expected.json"), JSON.stringify({ mitoses: await count() }));
    });

    test("asks for a pixel size, and measures it by the ruler", async () => {
        await open(page, prepared.unsized);
        expect(await text("#count")).toBe("–");
        expect(await page.locator("#hint").isVisible()).toBe(false);
        const box = await page.locator("#picture").boundingBox();
        if (!box) throw new Error("no picture");
        const pixels = 200;
        const size = await page.locator("#picture").evaluate((canvas) => [canvas.clientWidth, canvas.clientHeight]);
        const zoom = Math.min(size[0], size[1]) / prepared.side;
        await page.locator("#ruler").click();
        const [x, y] = [box.x + box.width / 2 - 100, box.y + box.height / 2];
        await page.mouse.move(x, y);
        await page.mouse.down();
        await page.mouse.move(x + pixels, y, { steps: 4 });
        await page.mouse.up();
        await page.locator("#length").fill(String((pixels / zoom) * prepared.micronsPerPixel));
        await page.locator("#line button").click();
        await until(async () => /\d candidates\./.test((await text("#status")) ?? ""));
        expect(Number(await page.locator("#microns").inputValue())).toBeCloseTo(prepared.micronsPerPixel, 2);
        await page.locator("#microns").fill("9");
        await page.locator("#size button").click();
        expect(await text("#status")).toMatch(/at most 4 times finer or coarser/);
    });

    test("says in one line what is wrong with a file", async () => {
        const bad = join(out, "notes.png");
        writeFileSync(bad, "no image");
        await open(page, fields[0]);
        const before = await count();
        await open(page, bad);
        expect(await text("#status")).toBe("notes.png: is not a TIFF, PNG, JPEG or BMP image.");
        expect(await count()).toBe(before); // the field before stays, and can be used
        await page.locator("#size button").click();
        await until(async () => /\d candidates\./.test((await text("#status")) ?? ""));
        expect(await count()).toBe(before);
    });

    test("works offline", async () => {
        await context.setOffline(true);
        await page.reload();
        await ready(page);
        await open(page, fields[0]);
        expect(await count()).toBe(rows(prepared.detected[basename(fields[0])]).length);
        await context.setOffline(false);
    });

    test("works on a phone, by touch", async () => {
        const phone = await browser.newContext({
            viewport: { width: 390, height: 844 },
            deviceScaleFactor: 2,
            hasTouch: true,
            isMobile: true,
            colorScheme: "dark",
        });
        const small = await newPage(phone);
        await open(small, fields[0]);
        await small.locator("#marks .mark").first().tap();
        const height = await small.locator(".tools").evaluate((tools) => tools.clientHeight);
        expect(height).toBeLessThan(60); // one row
        expect(await small.locator("#marks [aria-current]").count()).toBe(1);
        expect(await small.evaluate(() => document.documentElement.scrollWidth)).toBe(390);
        await small.screenshot({ path: join(out, "phone.png") });

        const session = await phone.newCDPSession(small);
        const picture = small.locator("#picture");
        const before = await picture.screenshot();
        const touch = (type: "touchStart" | "touchMove" | "touchEnd", ...columns: number[]) =>
            session.send("Input.dispatchTouchEvent", {
                type,
                touchPoints: columns.map((x, id) => ({ id, x, y: 250 })),
            });
        await touch("touchStart", 180, 210);
        for (let step = 1; step <= 5; step++) await touch("touchMove", 180 - 20 * step, 210 + 20 * step);
        await touch("touchEnd");
        expect((await picture.screenshot()).equals(before)).toBe(false); // the field is larger
        expect(await small.evaluate(() => visualViewport?.scale)).toBe(1); // and the page is not
        await phone.close();
    });

    test("can be installed", async () => {
        const session = await context.newCDPSession(page);
        const manifest = await session.send("Page.getAppManifest");
        expect(manifest.errors).toEqual([]);
        const { installabilityErrors } = await session.send("Page.getInstallabilityErrors");
        // A browser of tests keeps nothing, which is all that is in the way.
        expect(installabilityErrors.map(({ errorId }) => errorId)).toEqual(["in-incognito"]);
    });

    test("finds the same in a JPEG, whose pixel size is entered", async () => {
        await open(page, prepared.jpeg);
        await page.locator("#microns").fill(String(prepared.micronsPerPixel));
        await page.locator("#size button").click();
        await until(async () => /\d candidates\./.test((await text("#status")) ?? ""));
        const expected = rows(prepared.detected[basename(prepared.jpeg)]);
        expect(await count()).toBe(expected.length);
        rows(await save("#csv")).forEach(([, , probability], index) => {
            expect(Math.abs(probability - expected[index][2]), `mark ${index}`).toBeLessThan(1e-3);
        });
    });

    test("can be used with a screen reader", async () => {
        await open(page, fields[0]);
        await page.evaluate(axe.source);
        const found = (await page.evaluate("axe.run()")) as axe.AxeResults;
        expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`)).toEqual([]);
        expect(await page.locator(".research").textContent()).toBe("Research use only");
    });

    test("talks to nobody else, and cannot", async () => {
        expect([...requested]).toEqual([new URL(site.url).origin]);
        expect(problems).toEqual([]);
        // A server that would take anything; neither the document nor the worker, which has the field, may ask it.
        const asked: string[] = [];
        const other = createServer((request, response) => {
            asked.push(request.url ?? "");
            const headers = { "Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin" };
            response.writeHead(200, headers).end("taken");
        });
        await new Promise<void>((resolve) => {
            other.listen(0, "127.0.0.1", resolve);
        });
        const address = `http://127.0.0.1:${(other.address() as AddressInfo).port}/`;
        const send = (url: string) =>
            fetch(url).then(
                () => "sent",
                () => "blocked",
            );
        expect(await page.evaluate(send, address)).toBe("blocked");
        const worker = page.workers().find((one) => one.url().includes("/worker-")); // the others are its threads
        expect(await worker?.evaluate(send, address)).toBe("blocked");
        expect(asked).toEqual([]);
        other.close();
    });
});
