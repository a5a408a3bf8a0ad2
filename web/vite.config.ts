import { defineConfig } from "vite";

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
