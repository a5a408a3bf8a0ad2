import { defineConfig } from "vite";

// No connection but to where the page came from. A worker has the policy of its own response, so a document's is not
// enough: the service worker and `mitoscope serve` send it, too. Decoders of geotiff load from data: addresses.
const policy = [
    "default-src 'none'",
    "script-src 'self' 'wasm-unsafe-eval'",
    "worker-src 'self'",
    "connect-src 'self' data:",
    "img-src 'self'",
    "style-src 'self'",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
].join("; ");
process.env.VITE_POLICY = policy; // for index.html and offline.ts

const isolated = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

export default defineConfig({
    base: "./", // the page works in any folder of a server
    server: { headers: isolated },
    // ONNX Runtime's own files stay files: its threads load them, too.
    resolve: { conditions: ["onnxruntime-web-use-extern-wasm", "module", "browser", "production"] },
    worker: { format: "es" },
    build: {
        outDir: "../src/mitoscope/site",
        emptyOutDir: true,
        target: "es2023",
        assetsInlineLimit: 0, // the content security policy allows no data in the page
        modulePreload: false,
        rolldownOptions: {
            input: { index: "index.html", sw: "src/offline.ts" },
            output: { entryFileNames: ({ name }) => (name === "sw" ? "sw.js" : "assets/[name]-[hash].js") },
        },
    },
});
