/** Everything that takes long: decoding, the detector and its network. */

import wasmModule from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { checkSettings, detect, type Run, type Settings } from "./detector/detector";
import type { Picture } from "./detector/image";
import { readPicture } from "./files/reading";
import type { Reply, Request } from "./messages";

const MOST_THREADS = 4;

let picture: Picture | null = null;
let opening = 0; // number of the newest job of each kind
let detecting = 0;

env.wasm.wasmPaths = { mjs: new URL(wasmModule, import.meta.url).href, wasm: new URL(wasm, import.meta.url).href };
env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;

const detector = load();
detector
    .then(({ settings }) => send({ kind: "ready", settings, threads: env.wasm.numThreads ?? 1 }))
    .catch((error: unknown) => send({ kind: "failed", job: null, reason: text(error) }));

globalThis.addEventListener("message", (event: MessageEvent<Request>) => {
    const request = event.data;
    answer(request).catch((error: unknown) => send({ kind: "failed", job: request.job, reason: text(error) }));
});

async function answer(request: Request): Promise<void> {
    const { job } = request;
    if (request.kind === "open") {
        opening = job;
        const opened = await readPicture(request.file); // until it is read, the field before stays
        if (job !== opening) return;
        picture = opened;
        detecting = job;
        const bitmap = await createImageBitmap(asImageData(opened));
        const { micronsPerPixel, opaque } = opened;
        const transparent = opaque ? opaque.filter((value) => value === 0).length / opaque.length : 0;
        send({ kind: "opened", job, bitmap, micronsPerPixel, transparent }, [bitmap]);
        return;
    }
    if (!picture) throw new Error("no field is open");
    detecting = job;
    const { settings, run } = await detector;
    const found = await detect(settings, run, picture, request.micronsPerPixel, async (done, total) => {
        send({ kind: "scoring", job, done, total });
        await new Promise((resolve) => setTimeout(resolve)); // let a newer job come in
        return job === detecting;
    });
    if (found) send({ kind: "found", job, found });
}

/** Load the detector that lies beside the page. */
async function load(): Promise<{ settings: Settings; run: Run }> {
    const folder = new URL("../detector/", import.meta.url);
    const settings = checkSettings((await (await get(new URL("detector.json", folder))).json()) as Settings);
    const content = await download(await get(new URL(settings.network, folder)));
    await checkHash(content, settings);
    const session = await InferenceSession.create(content, { executionProviders: ["wasm"] });
    const output = settings.field_head ? "features" : "logits";
    return {
        settings,
        run: async (patches, count, side) => {
            const tensor = new Tensor("uint8", patches, [count, 3, side, side]);
            const outputs = await session.run({ patches: tensor }, [output]);
            return outputs[output].data as Float32Array;
        },
    };
}

async function get(url: URL): Promise<Response> {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url.pathname} cannot be loaded (${response.status}); make this page again`);
    return response;
}

/** Read a body, and say how far it is. */
async function download(response: Response): Promise<Uint8Array<ArrayBuffer>> {
    const total = Number(response.headers.get("Content-Length") ?? 0);
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let done = 0;
    const reader = response.body?.getReader();
    for (let part = await reader?.read(); part?.value; part = await reader?.read()) {
        parts.push(part.value);
        done += part.value.length;
        send({ kind: "loading", done, total: Math.max(done, total) });
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** A network of another export would give wrong scores without a word. Browsers hash only where the connection is safe. */
async function checkHash(content: Uint8Array<ArrayBuffer>, settings: Settings): Promise<void> {
    if (!globalThis.isSecureContext) return;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== settings.networks[settings.network].sha256) {
        throw new Error(`${settings.network} is not the network of detector.json; make this page again`);
    }
}

function asImageData({ width, height, rgb }: Picture): ImageData {
    const image = new ImageData(width, height);
    const { data } = image;
    for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
        data[to] = rgb[from];
        data[to + 1] = rgb[from + 1];
        data[to + 2] = rgb[from + 2];
        data[to + 3] = 255;
    }
    return image;
}

function send(reply: Reply, transfer: Transferable[] = []): void {
    globalThis.postMessage(reply, { transfer });
}

function text(error: unknown): string {
    return error instanceof Error ? error.message : String(error);
}
