/** A plain server for the files of a folder, as any web host is, and a browser to open them. */

import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { type Browser, chromium } from "playwright-core";

const TYPES: Readonly<Record<string, string>> = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
};

/** Serve a folder on a free port of this machine. */
export async function serve(folder: string): Promise<{ readonly url: string; readonly server: Server }> {
    const server = createServer(async (request, response) => {
        const path = new URL(request.url ?? "/", "http://localhost").pathname;
        const file = join(folder, normalize(path.endsWith("/") ? `${path}index.html` : path));
        try {
            const content = await readFile(file);
            response
                .writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" })
                .end(content);
        } catch {
            response.writeHead(404).end();
        }
    });
    await new Promise<void>((resolve) => {
        server.listen(0, "127.0.0.1", resolve);
    });
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, server };
}

/** Start the Chromium of the system, without connections of its own. */
export function launch(program: string): Promise<Browser> {
    const off = ["quic", "background-networking", "component-update", "sync"].map((name) => `--disable-${name}`);
    return chromium.launch({
        executablePath: program,
        args: ["--no-sandbox", "--disable-gpu", "--no-first-run", ...off],
    });
}
