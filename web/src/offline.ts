/// <reference lib="webworker" />
/** The service worker: keeps the page, ONNX Runtime and the network on the device, so that all works offline. */

import { addPlugins, cleanupOutdatedCaches, type PrecacheEntry, precacheAndRoute } from "workbox-precaching";

// `mitoscope page` replaces __FILES by the names and hashes of all files.
declare const self: ServiceWorkerGlobalScope & { readonly __FILES: PrecacheEntry[] };

// Threads need the first two, and a worker its policy; a server for static files sends none of them.
const HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": String(import.meta.env.VITE_POLICY),
};

addPlugins([
    {
        handlerWillRespond: async ({ response }) => {
            const headers = new Headers(response.headers);
            for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
            return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
        },
    },
]);
precacheAndRoute(self.__FILES, { ignoreURLParametersMatching: [/./] });
cleanupOutdatedCaches();
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
